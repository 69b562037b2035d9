"""What a home holds that can go: a run with its tables, and what would be made again when it is asked for.

Removal is by name first: a run leaves the listing of tables and a folder its place before any byte is deleted, so what
was interrupted is never half there, and the next removal or `prune` finishes it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgd_core.errors import UserError
from tasks.files.artefacts import read_json
from tasks.homes.working_copies import elsewhere, removed
from tasks.pool import index_jobs
from tasks.tables.published import unlist
from tasks.tables.run_folders import run_directories, run_directory

GOING = ".removed"
KEPT = {"cache": "fetched shards", "targets": "what is known of targets", index_jobs.KEPT: "the index of every tar"}
"""Folders of a home that only save time: each is made again, file by file, where it is asked for."""
DAY = 86_400.0
MADE_OF_POOLS = {"decoded-*": "decoded pictures", "tokens-*": "tokens of texts", "columns-*": "columns of a pool"}


class RunNeeded(UserError, RuntimeError):
    """Another run began from this one."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go; ``used``: when it was last written, seconds since 1970; ``size``: bytes."""

    path: Path
    what: str
    used: float
    size: int


def remove_run(home: Path, run: str) -> int:
    """Remove a run: its tables, record, work, subset and report. Returns the bytes that were freed.

    Raises:
        NoRun: with the ids there are.
        RunNeeded: another run's starting counts are of it; names those runs.
    """
    directory = run_directory(home, run)
    needing = [other.name for other in run_directories(home) if other.name != run and _begins_from(other, run)]
    if needing:
        raise RunNeeded(
            f"run {run} cannot be removed: {', '.join(needing)} began from it (descent.start) and would not go on "
            "without. Remove those first, or export the subset and name its file as start"
        )
    unlist(home, run)
    return sum(map(_delete, folders_of(directory)))


def folders_of(directory: Path) -> list[Path]:
    """Every folder that is a run's alone: those of its tables, and its own, last."""
    return [*sorted((directory.parents[1] / "tables").glob(f"*/run={directory.name}")), directory]


def leftovers(home: Path) -> Iterator[Leftover]:
    """All that would be made again: finished runs' work, what is made of pools, pools that no run is of, what only
    saves time (`KEPT`); old logs, and what an interrupted removal left."""
    home = Path(home)
    runs = run_directories(home)
    for run in runs:
        if (run / "report.html").exists() and (run / "work").is_dir():
            yield _leftover(run / "work", f"work of finished run {run.name}; a changed comparison would train again")
    used = {_pool_of(run) for run in runs}
    known = "" not in used  # of a run that cannot be read, nobody can say which pool is its
    for pool in sorted(path for path in (home / "pools").glob("*") if path.is_dir()):
        if pool.name not in used and known:
            yield _leftover(pool, "a pool that no run is of")
            continue
        for pattern, what in MADE_OF_POOLS.items():
            for made in sorted(pool.glob(pattern)):
                yield _leftover(made, what)
    for folder, what in KEPT.items():
        if (home / folder).is_dir():
            yield _leftover(home / folder, what)
    for path in sorted((home / "logs").glob("*.log.*")):
        yield _leftover(path, "an old log")
    for path in home.rglob(f".*{GOING}"):
        yield _leftover(path, "a removal that was interrupted")


def to_go(
    found: Sequence[Leftover], older_than: float | None, held: int, down_to: int | None, now: float
) -> list[Leftover]:
    """Those that have not been written for ``older_than`` days; with ``down_to``, the oldest of these only, as many as
    it takes from ``held`` bytes down to so many."""
    old = sorted((x for x in found if older_than is None or now - x.used > older_than * DAY), key=lambda x: x.used)
    if down_to is None:
        return old
    chosen = []
    for one in old:
        if held <= down_to:
            break
        chosen.append(one)
        held -= one.size
    return chosen


def delete(found: Sequence[Leftover]) -> int:
    """Delete them; returns the bytes that were freed."""
    return sum(_delete(one.path) for one in found)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    return _bytes(_entries(path)) + sum(one.size for one in elsewhere(path))


def _entries(path: Path) -> Iterator[os.stat_result]:
    """A file's entry, or those of a folder and of all files and folders in it."""
    yield path.lstat()
    for folder, folders, names in () if path.is_symlink() else os.walk(path):
        yield from (os.lstat(os.path.join(folder, name)) for name in (*folders, *names))


def _bytes(entries: Iterable[os.stat_result]) -> int:
    return sum(one.st_size for one in entries if not stat.S_ISDIR(one.st_mode))


def _leftover(path: Path, what: str) -> Leftover:
    used = max(one.st_mtime for one in _entries(path))
    return Leftover(path, what, max([used, *(one.modified for one in elsewhere(path))]), size_of(path))


def _begins_from(directory: Path, run: str) -> bool:
    """Whether a run's starting counts name another; a run that cannot be read needs nothing."""
    start = _recorded(directory, "catalog", "descent", "start")
    return isinstance(start, str) and run in start


def _pool_of(directory: Path) -> str:
    return str(_recorded(directory, "pool_id") or "")


def _recorded(directory: Path, *keys: str) -> Any:
    """What a run's record says under keys within keys; None where it does not, or cannot be read."""
    try:
        found: Any = read_json(directory / "run.json")
        for key in keys:
            found = found[key]
    except (UserError, KeyError, TypeError):
        return None
    return found


def _delete(path: Path) -> int:
    size = size_of(path)
    removed(path)
    going = path if path.name.endswith(GOING) else path.with_name(f".{path.name}{GOING}")
    if going != path:
        shutil.rmtree(going, ignore_errors=True)  # of an earlier removal
        os.rename(path, going)
    if going.is_dir() and not going.is_symlink():
        shutil.rmtree(going)
    else:
        going.unlink()
    return size
