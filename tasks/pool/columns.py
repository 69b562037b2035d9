"""A pool by position: what every process of a run asks of it, in columns that are mapped, not read.

Position i is row i of `samples.parquet`, whose uids ascend. Columns that every unit of work needs lie beside it as
plain arrays, made once in one pass over the table: opening them costs the same for any pool, a process holds the pages
that it touches, and the processes of a machine hold them together. Captions are not among them: nothing that trains
asks for more than their tokens.

Cost: 60 bytes a sample of disk, about 24 of memory while they are made, and a sort by shard.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from tasks.files.artefacts import is_done, publish_json, publishing, read_json, reading
from tasks.pool.record import PoolRecord
from tasks.pool.samples import read_spans
from tasks.tables.uids import Bytes16, uid_bytes

FORMAT = 1
STRETCH = 1 << 16
"""Samples whose columns are held while they are taken from the table."""
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoolColumns:
    """Columns of a pool of n samples in s shards, mapped; ``directory``: the pool's."""

    directory: Path
    names: list[str]
    """Shards (s,), ascending."""
    edges: Ids
    """Where each shard's samples begin in ``members`` (s + 1,)."""
    uids: Bytes16
    """(n,), ascending."""
    shards: npt.NDArray[np.int32]
    """Number of each sample's shard (n,), in the order of their names."""
    members: Ids
    """Positions (n,), shard after shard, ascending in each."""
    rows: Ids
    """Where each position stands in ``members`` (n,)."""
    images: Ids
    """Offset and size of each picture in its shard (n, 2), bytes; -1 where there is none."""

    def __len__(self) -> int:
        return len(self.uids)

    def of_shard(self, name: str) -> Ids:
        """Positions of a shard's samples, ascending; none where the pool has no such shard."""
        number = bisect_left(self.names, name)
        if number == len(self.names) or self.names[number] != name:
            return np.zeros(0, np.int64)
        return np.array(self.members[self.edges[number] : self.edges[number + 1]])

    def encoded(self, ids: Ids) -> list[bytes]:
        """The files of the pictures at positions, in their order; read shard by shard in the order of the offsets."""
        spans, shards = self.images[ids], self.shards[ids]
        order = np.lexsort((spans[:, 0], shards))
        edges = np.flatnonzero(np.diff(shards[order], prepend=-1, append=-1))
        found: list[bytes] = [b""] * len(ids)
        for start, stop in pairwise(edges):
            own = order[start:stop]
            ranges = [(at, at + size) for at, size in spans[own].tolist()]
            for i, data in zip(own, read_spans(self.names[shards[own[0]]], ranges, self.directory), strict=True):
                found[i] = data
        return found


@lru_cache(maxsize=2)
def pool_columns(pool: Path, content: str) -> PoolColumns:
    """Columns of the pool in a directory, whose samples table has the digest ``content``; made on the first call."""
    place = pool / f"columns-{content[:12]}"
    record, key = place / "columns.json", f"{FORMAT} {content}"
    if not is_done(record, key):
        publish_json(record, {"key": key, "names": _make(pool / "samples.parquet", place)})
    with reading(record):
        names: list[str] = read_json(record)["names"]
        kept = [mapped(place / f"{name}.npy") for name in ("edges", "uids", "shards", "members", "rows", "images")]
    return PoolColumns(pool, names, *kept)


def columns_of(pool: PoolRecord) -> PoolColumns:
    """Columns of a finished pool."""
    return pool_columns(pool.directory, pool.samples_digest)


def mapped(path: Path) -> Any:
    """An array in a file, mapped; a plain array to everybody."""
    with reading(path):
        return np.load(path, mmap_mode="r").view(np.ndarray)


def publish_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Publish an array as the file `path`."""
    with publishing(path) as file:
        np.save(file, array)


def _make(samples: Path, place: Path) -> list[str]:
    """Write the columns of a samples table; returns the names of its shards, ascending."""
    with reading(samples), pq.ParquetFile(samples) as file:
        n = file.metadata.num_rows
        uids, codes, images = np.empty(n, "S16"), np.empty(n, np.int32), np.empty((n, 2), np.int64)
        found: dict[str, int] = {}
        at = 0
        for rows in file.iter_batches(STRETCH, columns=["uid", "shard", "image_offset", "image_size"]):
            own, stop = rows["shard"].dictionary_encode(), at + rows.num_rows
            numbers = [found.setdefault(name, len(found)) for name in own.dictionary.to_pylist()]
            codes[at:stop] = np.array(numbers, np.int32)[own.indices.to_numpy()]
            uids[at:stop] = uid_bytes(rows["uid"])
            for i, name in enumerate(("image_offset", "image_size")):
                images[at:stop, i] = rows[name].fill_null(-1).to_numpy()
            at = stop
    publish_array(place / "uids.npy", uids)
    publish_array(place / "images.npy", images)
    del uids, images
    names = sorted(found)
    rank = np.empty(len(names), np.int32)
    rank[[found[name] for name in names]] = np.arange(len(names))
    shards = rank[codes]
    members = np.argsort(shards, kind="stable")
    rows_of = np.empty(n, np.int64)
    rows_of[members] = np.arange(n)
    edges = np.concatenate([[0], np.cumsum(np.bincount(shards, minlength=len(names)))])
    for name, column in (("shards", shards), ("members", members), ("rows", rows_of), ("edges", edges)):
        publish_array(place / f"{name}.npy", column)
    return names
