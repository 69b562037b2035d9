"""`mgd submit-folder`: a folder with everything that DataComp's leaderboard asks for, checked."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.commands import Make, named, whole

TEXT = """put a submission to DataComp's leaderboard together, and check it; nothing is uploaded

The folder holds the subset, the results, the record and text that go with them, and the official command that would
submit them. What contradicts each other (sizes, scales, uids, metrics) is told, all of it, and nothing is written.

--method is a TOML file: name, author, email, track (filtering or byod), hf_username, hf_repo_name, text (what was
done, Markdown), and, if there is one, writeup (its address)."""


def add_submit_folder(make: Make) -> None:
    """Add the command's parser."""
    made = make("submit-folder", _run, TEXT)
    made.add_argument("--out", type=Path, required=True, help="directory to write")
    made.add_argument(
        "--results", type=Path, required=True, help="eval_results.jsonl, as DataComp's evaluate.py writes it"
    )
    made.add_argument("--method", type=Path, required=True, help="TOML file that says what the method is and whose")
    made.add_argument("--scale", required=True, choices=("small", "medium", "large", "xlarge"))
    made.add_argument("--subset", type=Path, help="subset.npy (default: that of --run)")
    made.add_argument("--run", dest="run_id", type=named, help="run whose subset.npy to take (default: the latest)")
    made.add_argument("--dataset-size", type=whole, help="what would be stated: checked against what is there")
    made.add_argument("--pool", type=Path, help="directory of the pool, to check that the subset is within it")
    made.add_argument("--shards", type=Path, help="shards that were trained on, to check that they hold the subset")
    made.add_argument(
        "--info", type=Path, help="info.pkl of the training, to check its scale (read without running it)"
    )
    made.add_argument("--overwrite", action="store_true", help="replace a submission that is in --out")


def _run(options: argparse.Namespace) -> int:
    from tasks.submission.submissions import SubmissionOptions, write_submission

    subset = options.subset or _subset_of_run(options)
    names = set(SubmissionOptions.model_fields) - {"subset"}
    given = SubmissionOptions(subset=subset, **{name: getattr(options, name) for name in names})
    done = write_submission(given, options.out)
    averages = ", ".join(f"{name} {score:.3f}" for name, score in done.record["aggregates"].items())
    print(f"{done.path}: {done.record['dataset_size']:,} samples, {averages}")
    print(f"nothing was uploaded; {done.path / 'command.txt'} holds the official command that would")
    return 0


def _subset_of_run(options: argparse.Namespace) -> Path:
    from tasks.tables.run_folders import latest_run, run_directory

    return run_directory(options.home, options.run_id or latest_run(options.home)) / "subset.npy"
