"""Remote files: one reader a pool, which picks for each read between the local file, the cache and the store.

Single samples are ranged reads; neighbours that lie close are read as one span. A pass over a shard (or over most of
it) brings it whole into the cache where it fits, several chunks under way at once, and else reads it chunk by chunk
with the next chunk already asked for; a fault costs the chunk, not the pass. Local files are read where they are.

Cost: a look-up and ceil(bytes / chunk) requests a pass; memory for `AHEAD` chunks.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from tasks.files.remote_cache import ShardCache
from tasks.files.remotes import Range, RemoteFault, RemoteOptions, file_info, is_local, read_ranges

# What a store calls the thing that changes when a file is replaced, best first. No two stores agree.
STAMPS = (
    "ETag", "etag", "md5Hash", "generation", "Content-MD5", "mtime", "LastModified", "Last-Modified", "last_modified",
    "created",
)  # fmt: skip
NEAR = 64 << 10
"""Bytes between two ranges that are read through rather than asked for apart: about one request's worth of time."""
PASS_SHARE = 0.5
"""Share of a shard from which on it is brought whole."""


@dataclass(frozen=True)
class Reader:
    """Reads files by URL or local path."""

    options: RemoteOptions = field(default_factory=RemoteOptions)
    cache: ShardCache | None = None

    def version(self, url: str, fresh: bool = True) -> tuple[int, str]:
        """A file's length in bytes and the store's stamp of its version; the length is -1 if the store does not tell.

        Raises FileNotFoundError.
        """
        info = file_info(url, self.options, fresh)
        stamp = next((f"{key}={info[key]}" for key in STAMPS if info.get(key) is not None), "")
        return (-1 if info.get("size") is None else int(info["size"])), stamp

    def open(self, url: str) -> tuple[BinaryIO, int]:
        """A file to read through (it can seek) and its length: local, from the cache, or chunk by chunk."""
        if is_local(url):
            file = open(url.removeprefix("file://").removeprefix("local://"), "rb")  # noqa: SIM115
            return file, os.fstat(file.fileno()).st_size
        size, stamp = self.version(url)
        if size < 0:
            raise RemoteFault(f"{url}: the store does not say how long the file is, so it cannot be read by ranges")
        kept = self._bring(url, size, stamp)
        return kept or cast(BinaryIO, io.BufferedReader(RangedFile(url, size, self.options), 1 << 16)), size

    def read(self, url: str) -> bytes:
        """All of a (small) file; raises FileNotFoundError."""
        file, size = self.open(url)
        with file:
            return file.read(size)

    def ranges(self, url: str, spans: Sequence[Range]) -> list[bytes]:
        """The bytes of each span, in their order; short where the file ends before."""
        if is_local(url):
            return _pread(self.open(url)[0], spans)
        kept = self._kept(url, sum(end - start for start, end in spans))
        return _pread(kept, spans) if kept else _read_near(url, spans, self.options)

    def _kept(self, url: str, wanted: int) -> BinaryIO | None:
        """The cache's file of a URL: one that is there, or one brought now since most of it is wanted."""
        if self.cache is None or (wanted < NEAR and not self.cache.has_any(url)):
            return None
        size, stamp = self.version(url)
        return self._bring(url, size, stamp) if wanted >= PASS_SHARE * size > 0 else self.cache.find(url, stamp)

    def _bring(self, url: str, size: int, stamp: str) -> BinaryIO | None:
        """The cache's file of this version of a URL, brought now if it is not there and fits."""
        if self.cache is None:
            return None
        found = self.cache.find(url, stamp)
        if found is not None:
            return found
        fetched = self.cache.fetch(url, stamp, size, self.options)
        if fetched is not None and self.version(url) != (size, stamp):
            fetched.close()
            self.cache.drop(url, stamp)
            raise RemoteFault(f"{url}: was replaced while it was read; give the same command again")
        return fetched


class RangedFile(io.RawIOBase):
    """A remote file of known length, read in chunks; the chunk after the present one is always under way."""

    def __init__(self, url: str, size: int, options: RemoteOptions) -> None:
        self._url, self._size, self._options = url, size, options
        self._at, self._start, self._chunk = 0, 0, b""
        self._next: tuple[int, Future[bytes]] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position, bytes from the start."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; costs nothing until the next read."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` with what comes next; 0 at the end of the file."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if self._at >= self._size or not len(view):
            return 0
        if not self._start <= self._at < self._start + len(self._chunk):
            self._load(self._at)
        part = self._chunk[self._at - self._start :][: len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        """Let go; a chunk under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _load(self, start: int) -> None:
        ahead = self._next
        future = ahead[1] if ahead and ahead[0] == start else self._pool.submit(self._fetch, start)
        self._chunk, self._start = future.result(), start
        following = start + len(self._chunk)
        self._next = (following, self._pool.submit(self._fetch, following)) if following < self._size else None

    def _fetch(self, start: int) -> bytes:
        end = min(start + self._options.chunk, self._size)
        (data,) = read_ranges(self._url, [(start, end)], self._options)
        if len(data) < end - start:
            raise RemoteFault(
                f"{self._url}: bytes {start:,} to {end:,} of {self._size:,} gave only {len(data):,}; the file was "
                "replaced while it was read: give the same command again"
            )
        return data


def _pread(file: BinaryIO, spans: Sequence[Range]) -> list[bytes]:
    with closing(file):
        return [os.pread(file.fileno(), end - start, start) for start, end in spans]


def _read_near(url: str, spans: Sequence[Range], options: RemoteOptions) -> list[bytes]:
    """Spans cut out of fewer, larger reads: those that lie close together, up to a chunk."""
    order = sorted(range(len(spans)), key=spans.__getitem__)
    groups: list[list[int]] = []
    for i in order:
        last = groups[-1] if groups else []
        near = last and spans[i][0] - spans[last[-1]][1] <= NEAR
        if near and spans[i][1] - spans[last[0]][0] <= options.chunk:
            last.append(i)
        else:
            groups.append([i])
    joint = [(spans[group[0]][0], max(spans[i][1] for i in group)) for group in groups]
    result: list[bytes] = [b""] * len(spans)
    for group, (first, _), data in zip(groups, joint, read_ranges(url, joint, options), strict=True):
        for i in group:
            result[i] = data[spans[i][0] - first : spans[i][1] - first]
    return result
