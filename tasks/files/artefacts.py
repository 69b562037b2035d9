"""Artefacts: how every file of a run comes to be, so that a reader never sees half of one.

A file is written under a temporary name in the directory where it will live (or in a staging directory on the same file
system), flushed to the disk, and renamed over its final name; then the directory entry is flushed too. A process killed
at any instant leaves the old file or the new one, never a mixture. What it leaves under the temporary name is removed
by the next publish of the same name: a live writer holds an flock on its temporary file, a dead one cannot.

Cost: one extra rename and two fsync a file. It does not lock the final name: the last of two writers wins, whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from glob import escape
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from mgd_core import whole_files
from mgd_core.errors import UserError
from mgd_core.whole_files import NoRoom, full_disk

CHUNK = 1 << 20


class DamagedRecord(UserError, ValueError):
    """A record of ours that is not as we write them: something else changed it."""


class Record(dict[str, Any]):
    """A record as it was read: it names its file when it lacks what is asked of it."""

    __slots__ = ("path",)

    def __init__(self, path: str | Path, items: list[tuple[str, Any]]) -> None:
        super().__init__(items)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled."""
        return Record, (self.path, list(self.items()))

    def __missing__(self, key: str) -> Any:
        """Raise DamagedRecord."""
        raise _damaged(self.path, f"it has no {key!r}")


class DiskFull(NoRoom):
    """A publish ran out of space; nothing partial is left and the same command continues once there is room."""


def canonical_json(value: object) -> bytes:
    """JSON bytes that depend on the value only: sorted keys, no spaces, UTF-8. Refuses NaN, infinities and
    foreign types."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: object) -> str:
    """blake2b-128 of bytes, or of the canonical JSON of anything else, as 32 hex digits."""
    data = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else canonical_json(value)
    return blake2b(data, digest_size=16).hexdigest()


def file_digest(path: str | Path) -> str:
    """blake2b-128 of a file's bytes, as 32 hex digits, read in chunks of 1 MiB."""
    state = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()


@contextmanager
def staged(directory: str | Path, name: str) -> Iterator[BinaryIO]:
    """A new file `.name.*.tmp` in `directory`, open for writing, removed at the end unless `move_in` renamed it.

    Raises DiskFull, with what was needed and what to do, when the block runs out of space.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    sweep(directory, name)
    file = _create(directory, name)
    written = 0
    try:
        try:
            yield file
        finally:
            with suppress(OSError):  # closing flushes once more; the error that counts is already on its way
                written = max(written, os.fstat(file.fileno()).st_size)
                file.close()
            with suppress(FileNotFoundError):
                os.unlink(file.name)
    except Exception as error:
        if (code := full_disk(error)) is not None:
            raise _disk_full(directory / name, written, code) from error
        raise


def move_in(file: BinaryIO, path: Path) -> None:
    """Flush a staged file, rename it to its final name and make the rename durable."""
    file.flush()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole_files.move_in(file.name, path)


@contextmanager
def publishing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that appears under `path` only when the block ends well, complete and durable."""
    path = Path(path)
    with staged(path.parent, path.name) as file:
        yield file
        move_in(file, path)


def publish_bytes(path: str | Path, data: bytes) -> None:
    """Publish `data` as the file `path`."""
    with publishing(path) as file:
        file.write(data)


def publish_json(path: str | Path, record: object) -> None:
    """Publish a record as readable JSON with sorted keys; equal records give equal bytes."""
    text = json.dumps(record, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    publish_bytes(path, text.encode() + b"\n")


def read_json(path: str | Path) -> Record:
    """The record in `path`; raises DamagedRecord naming the file when it is not a JSON object, or lacks what is asked
    of it later."""
    with reading(path):
        found = json.loads(Path(path).read_bytes(), object_pairs_hook=partial(Record, path))
        if not isinstance(found, Record):
            raise TypeError(f"a JSON {type(found).__name__}, not an object")
    return found


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """A record or a table of ours is read in the block: what is wrong with its content becomes DamagedRecord naming the
    file."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.errno is not None:  # no file, no leave; Arrow's own complaints about bytes have no number
            raise
        raise _damaged(path, str(error)) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def is_done(record: Path, key: str) -> bool:
    """Whether a unit's record exists for these very inputs. One that is damaged, or none at all, is not done: the unit
    writes it anew."""
    try:
        found = read_json(record)
    except (FileNotFoundError, DamagedRecord):
        return False
    return bool(found.get("key") == key)


def unit_name(identity: str) -> str:
    """A file name for the unit of work that `identity` names in full: readable, and no two identities share one."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity)[-40:].strip("-")
    return f"{readable}-{digest(identity.encode('utf-8', 'surrogateescape'))[:16]}"


def sweep(directory: Path, name: str) -> None:
    """Remove what killed writers of `name` left under temporary names; files of living writers stay."""
    for path in directory.glob(f".{escape(name)}.*.tmp"):
        with suppress(OSError), open(path, "rb") as file:  # gone, or locked by its writer: not ours to remove
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)


def _create(directory: Path, name: str) -> BinaryIO:
    """Open and lock a fresh temporary file; again, should a sweep have taken it between the two."""
    while True:
        path = directory / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        file = open(path, "xb")  # noqa: SIM115  (closed by `staged`)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def _damaged(path: str | Path, what: str) -> DamagedRecord:
    return DamagedRecord(
        f"{path}: not a file as mgd writes them ({what[:400]}). Files of mgd are renamed in whole, so something "
        "else changed it; delete it and run the same command again"
    )


def _disk_full(path: Path, written: int, code: int) -> DiskFull:
    free = shutil.disk_usage(path.parent).free
    return DiskFull(
        code,
        f"{os.strerror(code)}: writing {path.name} needs more than the {written:,} bytes already written, and "
        f"{free:,} are free in {path.parent}. Nothing partial was left there. Free some space (or name a "
        "roomier place with --home) and give the same command again: finished work is kept",
        str(path),
    )
