"""Files that a command is told to write: `--out`, which may be anything that is there already.

An export replaces an export of its own kind, and nothing else: not a directory, a device, or a file that holds
something other. What stands in the way is told before anything is written, what the machine refuses in plain words.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mgd_core.errors import UserError
from tasks.files.artefacts import publishing
from tasks.files.export_directories import ExportError
from tasks.files.file_forms import HEAD, form_of

STARTS = {"datacomp": b"\x93NUMPY", "parquet": b"PAR1", "jsonl": b"{"}
"""How a file of each kind of export begins."""
CALLED = {"datacomp": "a .npy file", "parquet": "a Parquet file", "jsonl": "a file of JSON lines"}


@contextmanager
def publishing_over(out: str | Path, kind: str) -> Iterator[BinaryIO]:
    """A file to write that appears under `out` whole, in place of nothing or of an earlier export of the kind.

    Raises ExportError when something else is there, or the place cannot be written; DiskFull when there is no room.
    """
    out = Path(out)
    check_place(out)
    if out.exists():
        _check_kind(out, kind)
    with told_writing(out), publishing(out) as file:
        yield file


def check_place(out: Path) -> None:
    """Raise ExportError where nothing could be written under `out`, as far as that can be known without writing."""
    folder = out.absolute().parent
    while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ExportError(f"{out}: {folder} is no directory, so nothing can be written below it; name another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ExportError(f"{out}: no leave to write in {folder}; name another --out")


@contextmanager
def told_writing(out: Path) -> Iterator[None]:
    """What the machine refuses while `out` is written, as an ExportError that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise ExportError(f"{out}: cannot be written: {error.strerror or error}. Name another --out") from error


def _check_kind(out: Path, kind: str) -> None:
    if out.is_dir():
        raise ExportError(f"{out}: is a directory, this export is {CALLED[kind]}; name a file, such as {out}/subset")
    if not out.is_file():
        raise ExportError(f"{out}: is a device or a pipe, and would be replaced by a file; name a file")
    with told_writing(out), open(out, "rb") as file:
        head = file.read(HEAD)
    if head and not head.startswith(STARTS[kind]):  # an empty file is nobody's
        form = form_of(head) or "something else"
        raise ExportError(
            f"{out}: is there and is not {CALLED[kind]} but {form}, so it is not replaced; name another --out, or "
            "remove it"
        )
