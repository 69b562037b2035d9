"""Runs as the command line lists and exports them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from mgd_core.errors import UserError
from tasks.export.exports import SubsetReport, export_datacomp, export_jsonl, export_parquet
from tasks.export.reshard import ReshardOptions, reshard
from tasks.files.plurals import counted, sized
from tasks.homes.working_copies import shown
from tasks.runs.housekeeping import folders_of, size_of
from tasks.runs.run import NewerRecord, Run
from tasks.tables.published import NewerTable, files, read
from tasks.tables.run_folders import ONLY_BEGUN, NoRun, chosen_round, latest_run, run_directories, run_directory

Format = Literal["datacomp", "parquet", "jsonl", "webdataset"]
NAMES = {"datacomp": "subset.npy", "parquet": "subset.parquet", "jsonl": "subset.jsonl", "webdataset": "subset-shards"}


def open_run(home: Path, run: str) -> Run:
    """The run of this id.

    Raises:
        NoRun: with the ids there are.
    """
    return Run.load(run_directory(home, run))


def readable_run(home: Path, run: str | None) -> str:
    """Id of a run that has tables to read: the named one, or the latest.

    Raises:
        NoRun: there is none, or it has published nothing yet.
    """
    chosen = open_run(home, run or latest_run(home)).id
    if not files(Path(home), chosen, "counts"):
        raise NoRun(f"run {chosen} {ONLY_BEGUN}")
    return chosen


def format_runs(home: Path) -> str:
    """One line a run: id, when it was begun, its size on disk, rounds done of rounds planned, what was chosen."""
    lines = [_listed(directory) for directory in run_directories(home)]
    heading = _line("run", "begun", "size", "rounds", "chosen", "held-out", "report")
    return "\n".join([heading, *lines]) if lines else f"no runs in {shown(home)}; begin one with `mgd curate fashion`"


def _listed(directory: Path) -> str:
    """A run's line; of one that cannot be read, why."""
    begun = time.strftime("%Y-%m-%d", time.localtime((directory / "run.json").stat().st_mtime))
    size = sized(sum(map(size_of, folders_of(directory))))
    try:
        run = Run.load(directory)
        done, chosen = len(files(run.home, run.id, "rounds")), chosen_round(run.home, run.id)
        value = None if chosen is None else read(run.home, run.id, "choices", chosen)["value"][0].as_py()
        published = files(run.home, run.id, "counts")
    except UserError as error:
        newer = isinstance(error, NewerRecord | NewerTable)
        return _line(directory.name, begun, size, "", "", "", f"({'newer' if newer else 'damaged'}: {error})")
    planned = run.catalog.descent.trained_rounds or done  # none: comparison only
    page, rounds = directory / "report.html", f"{done}/{planned}"
    report = (
        str(page) if page.exists() else "(not finished)" if published else "(only begun: nothing to report or ask yet)"
    )
    held_out = "" if value is None else f"{value:.3f}"
    return _line(run.id, begun, size, rounds, "" if chosen is None else str(chosen), held_out, report)


def _line(run: str, begun: str, size: str, rounds: str, chosen: str, held_out: str, report: str) -> str:
    return f"{run:<28} {begun:<10} {size:>10} {rounds:>7} {chosen:>7} {held_out:>9}  {report}"


def export_run(
    home: Path, run_id: str, format: Format, out: Path | None, round: int | None, how: ReshardOptions
) -> str:
    """Write the subset of a run's round (default: the chosen one); returns one sentence on what was written. `how` is
    for shards only.

    Raises:
        NoRun: no such run, or no counts of that round yet.
    """
    run = open_run(home, run_id)
    number = chosen_round(run.home, run.id) if round is None else round
    if number is None:
        raise NoRun(f"run {run.id} has chosen no round yet; finish it with `mgd curate`, or name one with --round")
    target = out or run.directory / NAMES[format]
    if format == "webdataset":
        shards = reshard(run.pool_directory, run.counts(number), target, how)
        made = counted(shards.shards, "shard")
        what = f"{counted(shards.samples, 'sample')} ({shards.distinct:,} distinct) in {made}"
    else:
        report = _write(run, format, number, target)
        copies = counted(report.most_copies, "copy", "copies")
        what = f"{counted(report.records, 'sample')} ({report.distinct:,} distinct, at most {copies} of one)"
    return f"{target}: round {number}, {what}"


def _write(run: Run, format: Format, round: int, target: Path) -> SubsetReport:
    """One file with the subset."""
    counts = run.counts(round)
    if format == "datacomp":
        return export_datacomp(counts, target)
    if format == "parquet":
        return export_parquet(counts, target, run.provenance(round))
    return export_jsonl(counts, run.pool, target, getattr(run.catalog.pool, "columns", None))
