"""The flow `submit-folder`: a submission to DataComp's leaderboard, put together and checked; nothing is uploaded."""

from __future__ import annotations

from pathlib import Path

from flows.runtime.operating import stage, unit
from tasks.files.progress import say
from tasks.submission.submissions import Scale, SubmissionOptions, write_submission
from tasks.tables.run_folders import latest_run, run_directory


@unit("write-submission", "submission in {out}")
def write(given: SubmissionOptions, out: Path) -> str:
    """Check what goes in, and write the folder."""
    done = write_submission(given, out)
    return f"{done.path}: {done.record['dataset_size']:,} samples; nothing was uploaded"


@stage("submit-folder")
def submit_folder(
    out: str,
    results: str,
    method: str,
    scale: Scale,
    home: str = "runs",
    run: str | None = None,
    subset: str | None = None,
    pool: str | None = None,
    shards: str | None = None,
    info: str | None = None,
    overwrite: bool = False,
) -> str:
    """Put a submission together and check it: contradictions are told, and nothing is written then. Returns `out`.

    Args:
        out: directory to write.
        results: eval_results.jsonl, as `evaluate` or DataComp's evaluate.py writes it.
        method: TOML file that says what the method is and whose.
        scale: DataComp's scale.
        home: directory of all runs, pools and tables, where the flow runs.
        run: the run whose subset.npy is taken; otherwise the latest.
        subset: a subset.npy instead of a run's.
        pool: directory of the pool, to check that the subset is within it.
        shards: shards that were trained on, to check that they hold the subset.
        info: info.pkl of the training, to check its scale (read without running it).
        overwrite: replace a submission that is in `out`.
    """
    base = Path(home).resolve()
    taken = Path(subset) if subset else run_directory(base, run or latest_run(base)) / "subset.npy"
    places = {"subset": taken, "results": results, "method": method, "pool": pool, "shards": shards, "info": info}
    given = SubmissionOptions.model_validate({**places, "scale": scale, "overwrite": overwrite})
    say(write.submit(given, Path(out)).result())
    return out
