"""Stores: a home's files at its URL, one whole object each, by `tasks.files.remotes` and its patience.

An object store shows an object when all of it is there; where fsspec writes a file bit by bit (`file://`, `sftp://`),
it is written under a hidden name and renamed. A store must list what was just written (S3, GCS and file systems do).

Cost: two requests a file sent (its stamp is asked for after it), one of at most `chunk` bytes brought, one a thousand
files listed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from fsspec import AbstractFileSystem

from mgd_core.errors import UserError
from tasks.files.artefacts import move_in, staged
from tasks.files.remote_files import STAMPS
from tasks.files.remotes import RemoteOptions, deadline, patiently, store_of
from tasks.homes.working_copies import Entry

T = TypeVar("T")
WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"}
"""Protocols whose objects appear whole."""
GONE_IS_TOLD = ("look up", "read")
"""What ends with FileNotFoundError where there is no such file."""
SLOWEST = 1 << 20
"""Bytes a second that a transfer is given time for, beside the time of a request."""
PATIENT = RemoteOptions()
WRITTEN = ("LastModified", "last_modified", "updated", "mtime", "created")


class StoreRefuses(UserError, OSError):
    """A store that will not do what a home needs of it."""


@dataclass(frozen=True)
class Store:
    """The files below a URL, by their paths relative to it."""

    url: str
    options: RemoteOptions = PATIENT

    def list(self, below: str = "") -> dict[str, Entry]:
        """All files there, or those below a folder."""
        fs, base = self._place()

        def ask() -> dict[str, Any]:
            fs.invalidate_cache()
            return dict(fs.find(f"{base}/{below}".rstrip("/"), detail=True, **deadline(fs, self.options)))

        found = self._do("list it", "", ask)
        return {name[len(base) + 1 :]: _entry(info) for name, info in found.items() if name.startswith(f"{base}/")}

    def send(self, path: str, content: Path | bytes) -> Entry:
        """Put a file there, and see what it is there."""
        self.put(path, content)
        return self.look(path)

    def put(self, path: str, content: Path | bytes) -> None:
        """Put a file there, whole, in place of an earlier one."""
        fs, base = self._place()
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        patience = self.options.model_copy(update={"timeout_s": self.options.timeout_s + size / SLOWEST})
        folder, _, name = f"{base}/{path}".rpartition("/")
        whole = self.url.partition("://")[0] in WHOLE
        target = f"{folder}/{name}" if whole else f"{folder}/.{name}.part"

        def put() -> None:
            if not whole:
                fs.makedirs(folder, exist_ok=True)
            if isinstance(content, bytes):
                fs.pipe_file(target, content, **deadline(fs, patience))
            else:
                fs.put_file(str(content), target, **deadline(fs, patience))
            if not whole:
                fs.mv(target, f"{folder}/{name}")

        self._do("write", path, put)

    def look(self, path: str) -> Entry:
        """A file as it is now; raises FileNotFoundError."""
        fs, base = self._place()

        def ask() -> Entry:
            fs.invalidate_cache(f"{base}/{path}")
            return _entry(fs.info(f"{base}/{path}", **deadline(fs, self.options)))

        return self._do("look up", path, ask)

    def fetch(self, path: str, to: Path) -> Entry:
        """Bring a file, whole, with the time at which it was written, again should it be replaced meanwhile; raises
        FileNotFoundError."""
        entry, chunk = self.look(path), self.options.chunk
        while True:
            with staged(to.parent, to.name) as file:
                for start in range(0, entry.size, chunk):
                    file.write(self.read(path, start, min(start + chunk, entry.size)))
                before, entry = entry, self.look(path)
                if before == entry and file.tell() == entry.size:
                    file.flush()
                    os.utime(file.name, (entry.modified, entry.modified))
                    move_in(file, to)
                    return entry

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes of a file, or those of a range; raises FileNotFoundError."""
        fs, base = self._place()

        def ask() -> bytes:
            return bytes(fs.cat_file(f"{base}/{path}", start=start, end=end, **deadline(fs, self.options)))

        return self._do("read", path, ask)

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is."""
        fs, base = self._place()

        def remove() -> None:
            with suppress(FileNotFoundError):
                fs.rm_file(f"{base}/{path}")

        self._do("remove", path, remove)

    def _place(self) -> tuple[AbstractFileSystem, str]:
        fs, path = store_of(self.url)
        return fs, path.rstrip("/")

    def _do(self, what: str, path: str, call: Callable[[], T]) -> T:
        with _told(self.url, what, path):
            return patiently(f"{self.url}/{path}".rstrip("/"), f"{what} it" if path else what, self.options, call)


@contextmanager
def _told(url: str, what: str, path: str) -> Iterator[None]:
    """What a store refuses, as a sentence for its user."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, UserError) or (isinstance(error, FileNotFoundError) and what in GONE_IS_TOLD):
            raise
        raise StoreRefuses(
            f"{url}: the store refuses to {what} {path}".rstrip() + f" ({type(error).__name__}: {error}). Check the "
            "address, that its bucket is there, that the keys may list, read, write and remove there, and its quota; "
            "then give the same command again: what is done is kept on this machine"
        ) from error


def _entry(info: dict[str, Any]) -> Entry:
    stamp = next((f"{key}={info[key]}" for key in STAMPS if info.get(key) is not None), "")
    written = next((info[key] for key in WRITTEN if info.get(key) is not None), 0.0)
    if isinstance(written, str):
        written = datetime.fromisoformat(written)
    seconds = written.timestamp() if isinstance(written, datetime) else float(written)
    return Entry(int(info["size"]), stamp, seconds)
