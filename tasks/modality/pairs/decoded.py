"""A pool's pictures decoded at one size: a file that any process maps, in the order of the shards.

In that order a part of the work is a stretch of the file, a probe of a shard reads one stretch of it, and a training
finds a position by the pool's column of rows. The file is laid out whole before the first picture is decoded, so a disk
that cannot hold it is told then.
"""

from __future__ import annotations

import io
import os
from math import prod
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from mgd_core.whole_files import sync
from tasks.files.artefacts import publishing
from tasks.modality.prepared import WHOLE, Prepared
from tasks.pool.columns import Ids, PoolColumns, mapped
from tasks.pool.decoding import VERSION, decode, resized
from tasks.pool.record import PoolRecord
from tasks.tables.uids import Bytes16

AT_ONCE = 256
"""Pictures that are held while decoding."""
LOOKED_AT = 1 << 18
"""Digests that are looked at together."""
Images = npt.NDArray[np.uint8]


class DecodedPool(Prepared):
    """Pictures (n, 3, S, S) uint8 and digests of them as they came (n,), shard after shard; ``size``: S, pixels."""

    what: ClassVar[str] = "decode the pool's pictures"
    at_least: ClassVar[int] = 8192

    def __init__(self, columns: PoolColumns, pool: PoolRecord, size: int) -> None:
        super().__init__(columns, pool.directory / f"decoded-{VERSION}-{size}-{pool.samples_digest[:12]}")
        self.size, self._content = size, pool.samples_digest

    @property
    def key(self) -> str:
        """The pool, the rule of decoding and the size."""
        return f"decoded {VERSION} {self.size} {self._content}"

    @property
    def cuts(self) -> Ids:
        """Where shards end."""
        return self.columns.edges[1:]

    @property
    def images(self) -> Images:
        """The pictures, mapped."""
        found: Images = mapped(self._files[0].path)
        return found

    @property
    def digests(self) -> Bytes16:
        """blake2b-128 of each decoded picture, mapped."""
        found: Bytes16 = mapped(self._files[1].path)
        return found

    @property
    def is_whole(self) -> bool:
        """Whether it is made, and nobody removed it."""
        return super().is_whole and self._laid_out

    def lay_out(self) -> None:
        """Two files of their final size."""
        if self._laid_out:
            return
        (self.directory / WHOLE).unlink(missing_ok=True)  # of files that somebody removed
        self.forget()
        for column in self._files:
            with publishing(column.path) as file:
                file.write(column.header)
                os.posix_fallocate(file.fileno(), 0, column.place(len(self.columns)))

    def write(self, number: int, start: int, stop: int) -> None:
        """Decode a stretch into its place in the files."""
        files = self._files
        with open(files[0].path, "r+b") as images, open(files[1].path, "r+b") as digests:
            images.seek(files[0].place(start))
            digests.seek(files[1].place(start))
            for at in range(start, stop, AT_ONCE):
                for data in self.columns.encoded(self.columns.members[at : min(at + AT_ONCE, stop)]):
                    picture = decode(data)
                    images.write(resized(picture.image, self.size).tobytes())
                    digests.write(picture.digest)
        for column in files:
            sync(column.path)

    @property
    def _files(self) -> tuple[Column, Column]:
        n = len(self.columns)
        images = Column(self.directory / "images.npy", "|u1", (n, 3, self.size, self.size))
        return images, Column(self.directory / "digests.npy", "|S16", (n,))

    @property
    def _laid_out(self) -> bool:
        return all(column.path.exists() for column in self._files)


class Column(NamedTuple):
    """A file of NumPy's that is written from many sides."""

    path: Path
    kind: str
    shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        """Its first bytes."""
        written = io.BytesIO()
        what = {"descr": self.kind, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_2_0(written, what)
        return written.getvalue()

    def place(self, row: int) -> int:
        """Where a row begins."""
        return len(self.header) + row * prod(self.shape[1:]) * np.dtype(self.kind).itemsize


def rows_of(wanted: Bytes16, digests: Bytes16) -> Ids:
    """The first row of each of a few digests (m,) among those of a pool, -1 where there is none; goes through the pool
    in stretches."""
    ordered, found = np.sort(wanted), np.full(len(wanted), -1, np.int64)
    for start in range(0, len(digests) if len(wanted) else 0, LOOKED_AT):
        stretch = digests[start : start + LOOKED_AT]
        nearest = ordered[np.searchsorted(ordered, stretch).clip(max=len(ordered) - 1)]
        shared, rows = np.unique(np.where(nearest == stretch, stretch, b""), return_index=True)
        for one, row in zip(shared, rows, strict=True):
            found[(wanted == one) & (nearest[row] == one) & (found < 0)] = start + row
    return found
