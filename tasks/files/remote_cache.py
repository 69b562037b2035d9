"""A bounded local cache of remote shards: whole files, as many as fit, shared by all processes of a home.

An entry is named after its URL and the stamp of its version, so a shard that was replaced is another entry and stale
bytes are never served. Space is taken before the first byte arrives: under a lock, entries are removed until the new
one fits, and its temporary file is given its full length. An entry appears by rename, complete. Readers hold it open,
so removing it under them harms nobody.

What goes is drawn at random: passes over a pool larger than the cache would find nothing under least-recently-used,
and find about cache / pool of it this way. Nothing depends on what is in the cache but the time that reading takes.
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tasks.files.artefacts import digest, publishing, sweep
from tasks.files.remotes import RemoteFault, RemoteOptions, read_ranges

AHEAD = 4
"""Chunks of a shard that are under way together while it is fetched."""


@dataclass(frozen=True)
class ShardCache:
    """Remote files kept in `directory`, at most `limit` bytes of them."""

    directory: Path
    limit: int

    def find(self, url: str, stamp: str) -> BinaryIO | None:
        """The entry of a URL's version, open for reading, or None."""
        try:
            return open(self._path(url, stamp), "rb")
        except FileNotFoundError:
            return None

    def has_any(self, url: str) -> bool:
        """Whether some version of a URL is here; costs no request."""
        return any(self.directory.glob(f"{digest(url.encode())}-*"))

    def fetch(self, url: str, stamp: str, size: int, options: RemoteOptions) -> BinaryIO | None:
        """Bring the entry here, open for reading; None when `size` bytes do not fit.

        Raises RemoteFault when the file is not as long as the store said.
        """
        if size > self.limit:
            return None
        with self._reserving(self._path(url, stamp), size) as file:
            if file is None:
                return None
            for start in range(0, size, options.chunk * AHEAD):
                ranges = [(at, min(at + options.chunk, size)) for at in _steps(start, size, options.chunk)]
                for (at, end), data in zip(ranges, read_ranges(url, ranges, options), strict=True):
                    if len(data) < end - at:
                        raise RemoteFault(f"{url}: ends at byte {at + len(data):,}, the store said {size:,}")
                    file.write(data)
            # Open before it is public: from then on another process may remove it to make room.
            return open(file.name, "rb")

    def drop(self, url: str, stamp: str) -> None:
        """Remove the entry of a URL's version, if it is here."""
        self._path(url, stamp).unlink(missing_ok=True)

    def _path(self, url: str, stamp: str) -> Path:
        return self.directory / f"{digest(url.encode())}-{digest(stamp.encode())[:16]}"

    @contextmanager
    def _reserving(self, path: Path, size: int) -> Iterator[BinaryIO | None]:
        """A file to fill that becomes the entry, its space taken; None when unfinished ones leave no room."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / ".lock", "wb") as lock, ExitStack() as stack:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fits = self._make_room(size)
            file = stack.enter_context(publishing(path)) if fits else None
            if file is not None:
                file.truncate(size)
            fcntl.flock(lock, fcntl.LOCK_UN)  # the space is taken, others may go on
            yield file
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
            fcntl.flock(lock, fcntl.LOCK_EX)  # who counts what is here sees one name of it, never both or none

    def _make_room(self, size: int) -> bool:
        """Remove entries, and what killed processes left, until `size` more bytes fit; whether they do."""
        entries, used = [], 0
        for entry in list(os.scandir(self.directory)):
            if entry.name.endswith(".tmp"):  # .<name>.<writer>.tmp: gone after this if its writer is
                sweep(self.directory, entry.name[1:].rsplit(".", 2)[0])
            with suppress(FileNotFoundError):
                length = os.stat(entry.path).st_size
                used += length
                if not entry.name.startswith("."):
                    entries.append((Path(entry.path), length))
        random.shuffle(entries)
        while used + size > self.limit and entries:
            path, length = entries.pop()
            path.unlink(missing_ok=True)
            used -= length
        return used + size <= self.limit


def _steps(start: int, size: int, chunk: int) -> range:
    return range(start, min(start + chunk * AHEAD, size), chunk)
