"""The flow `export`: a run's subset for others to use."""

from __future__ import annotations

from pathlib import Path

from flows.runtime.operating import stage, tagged, unit
from tasks.export.reshard import ReshardOptions
from tasks.files.artefacts import digest, is_done, publish_json
from tasks.files.progress import say
from tasks.runs.listing import NAMES, Format, export_run, open_run
from tasks.tables.run_folders import chosen_round, latest_run


@unit("export-subset", "{run_id} as {form}")
def export_subset(home: Path, run_id: str, form: Format, out: Path, round: int | None, how: ReshardOptions) -> str:
    """Write the subset, unless this very one is there."""
    run = open_run(home, run_id)
    number = chosen_round(home, run_id) if round is None else round
    key = run.key("export", form, number, how.model_dump(exclude={"workers", "overwrite"}))
    record = run.work("exports", f"{form}-{digest(str(out).encode())[:16]}.json")
    if out.exists() and is_done(record, key):
        told = f"export: {out} holds round {number} of {run_id}, and nothing changed"
    else:
        told = export_run(home, run_id, form, out, round, how)
        publish_json(record, {"key": key})
    say(told)
    return told


@stage("export")
def export(
    form: Format = "datacomp",
    home: str = "runs",
    run: str | None = None,
    round: int | None = None,
    out: str | None = None,
    shard_size: int = 10_000,
    seed: int = 0,
    overwrite: bool = False,
) -> str:
    """Write a run's subset; one that is there and would be the same is not written again. Returns where it is.

    Args:
        form: datacomp (.npy for its resharder), parquet, jsonl (a pool of texts) or webdataset (shards).
        home: directory of all runs, pools and tables, where the flow runs.
        run: the run's id; otherwise the latest.
        round: the round whose counts are taken; otherwise the chosen one.
        out: file or directory to write; otherwise one in the run's directory.
        shard_size: most samples in a shard (webdataset).
        seed: seed of the shuffle (webdataset).
        overwrite: replace another export in `out` (webdataset).
    """
    base = Path(home).resolve()
    found = open_run(base, run or latest_run(base))
    place = Path(out).absolute() if out else found.directory / NAMES[form]
    how = ReshardOptions(shard_size=shard_size, seed=seed, overwrite=overwrite)
    with tagged(found.id):
        export_subset.submit(base, found.id, form, place, round, how).result()
    return str(place)
