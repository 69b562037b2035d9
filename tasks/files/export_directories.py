"""Export directories: where shards are made, and how they come to be in place, whole.

An export is made in `.<name>.reshard` beside its directory, by one process at a time, and renamed in when it is
complete. A directory that holds something else is not touched: a trainer reads every tar in a directory, so old ones
must neither stay nor go unasked. Told to replace, it replaces another export, and nothing but an export.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgd_core.errors import UserError
from mgd_core.whole_files import sync
from tasks.files.artefacts import read_json

EXPORTED = re.compile(r"\d+\.tar|\d+_stats\.json|\d+\.parquet|sample_ids\.npy|lost\.parquet|meta\.json|sizes\.json")


class ExportError(UserError, ValueError):
    """An output directory that cannot be written as it is: what is in it, and what to do."""


@contextmanager
def working(out: Path) -> Iterator[Path]:
    """The directory in which `out` is made, held by this process; it goes when there is nothing in it.

    Raises ExportError when another process holds it.
    """
    work = out.parent / f".{out.name}.reshard"
    work.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExportError(f"{out}: another process is writing it just now; wait for it to end") from error
        yield work
        shutil.rmtree(work)
    finally:
        if work.exists() and not any(work.iterdir()):
            work.rmdir()
        os.close(descriptor)


def finished(out: Path, key: str, shard_format: str, overwrite: bool) -> dict[str, Any] | None:
    """What `out` says of itself if it is the export of this key; None if it is not.

    Raises ExportError when it lacks something and is not to be replaced.
    """
    path = out / "meta.json"
    try:
        meta: dict[str, Any] = read_json(path) if path.is_file() else {}
        if meta.get("digest") != key:
            return None
    except (ValueError, AttributeError):  # something else of that name: `refuse_stale` has a word on it
        return None
    tars = [out / shard_format.format(number) for number in range(meta["output_shard_count"])]
    missing = [tar.name for tar in tars if not tar.is_file()]
    size = sum(tar.stat().st_size for tar in tars if tar.is_file())
    if missing or size != meta["output_bytes"]:
        if overwrite:
            return None
        raise ExportError(
            f"{out}: was complete, and now lacks {len(missing)} tars {missing[:3]} and has {size:,} bytes of "
            f"{meta['output_bytes']:,}. Somebody changed it; make it anew with --overwrite"
        )
    return meta


def refuse_stale(out: Path, overwrite: bool) -> None:
    """Raise ExportError unless `out` is absent or empty, or may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ExportError(f"{out}: is a file; shards are written into a directory: name another")
    if not overwrite:
        raise ExportError(
            f"{out}: not empty, and not this export. A trainer would read old tars along with new ones: name another "
            "directory, or replace this export with --overwrite"
        )
    foreign = sorted(p.name for p in out.iterdir() if not _is_exported(p))
    if foreign:
        raise ExportError(
            f"{out}: holds {len(foreign)} entries that no export makes, first {foreign[0]!r}, so it is not replaced. "
            "Name another directory, or move them away"
        )


def put_in_place(new: Path, out: Path) -> None:
    """Rename the complete directory `new` to `out`; what is there goes first out of the way, then for good."""
    old = new.parent / "replaced"
    if out.exists() and any(out.iterdir()):
        os.rename(out, old)
    os.rename(new, out)
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _is_exported(path: Path) -> bool:
    return path.is_file() and EXPORTED.fullmatch(path.name) is not None
