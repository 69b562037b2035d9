"""Images of a windowed training: shards are read whole, once as their window comes, and let go when it is over.

Kept are the encoded images of the samples that the training may ask for, of the shards that were used last, up to a
number of samples; with room for the windows that are in use together each shard is read once an epoch. Those of the
next window are read while the present one is trained on. Decoding happens when a batch is made. Memory: the kept
samples' files, about 30 kB each on DataComp's pools. Any number of threads may ask.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
import numpy.typing as npt

from tasks.modality.pairs.decoded import Images
from tasks.modality.pairs.pairs import Streamed, decoded
from tasks.pool.columns import Ids

LANES = 4
"""Shards that are read side by side."""


class HeldShards:
    """Decoded images of pool positions, by way of whole shards; ``reads`` counts the shards that were read."""

    def __init__(self, pool: Streamed, wanted: npt.NDArray[np.bool_], capacity: int) -> None:
        """``wanted``: (n,) positions that may be asked for; ``capacity``: samples kept, but for the shards of one
        batch, which are kept whatever they hold."""
        self._pool, self._capacity, self._shards = pool, capacity, pool.columns.shards
        members = pool.columns.members
        self._members = members[wanted[members]]
        sizes = np.bincount(self._shards[self._members], minlength=len(pool.columns.names))
        self._edges = np.concatenate([[0], np.cumsum(sizes)])
        self._held: OrderedDict[int, Future[list[bytes]]] = OrderedDict()
        self._lock, self._threads = Lock(), ThreadPoolExecutor(LANES, thread_name_prefix="read shards")
        self.reads = 0

    def expect(self, shards: Iterable[int]) -> None:
        """Have these shards read: they are needed next."""
        with self._lock:
            for shard in shards:
                self._ask(shard)
            self._let_go(set())

    def __call__(self, ids: Ids) -> Images:
        """Images of positions ``ids``, (m, 3, S, S) uint8."""
        return decoded(self.files(ids), self._pool.size)

    def files(self, ids: Ids) -> list[bytes]:
        """Encoded images of positions ``ids``."""
        own = self._shards[ids]
        with self._lock:
            futures = {shard: self._ask(shard) for shard in dict.fromkeys(own.tolist())}
            self._let_go(set(futures))
        return [
            futures[shard].result()[int(np.searchsorted(self._positions(shard), position))]
            for shard, position in zip(own.tolist(), ids.tolist(), strict=True)
        ]

    def _positions(self, shard: int) -> Ids:
        return self._members[self._edges[shard] : self._edges[shard + 1]]

    def _ask(self, shard: int) -> Future[list[bytes]]:
        """The shard's images, under way or here; used last from now on. A read that failed is made again."""
        future = self._held.pop(shard, None)
        if future is None or (future.done() and future.exception() is not None):
            future = self._threads.submit(self._read, shard)
            self.reads += 1
        self._held[shard] = future
        return future

    def _read(self, shard: int) -> list[bytes]:
        return self._pool.columns.encoded(self._positions(shard))

    def _let_go(self, needed: set[int]) -> None:
        """Drop the shards that were used longest ago until the rest is within the capacity."""
        used = sum(len(self._positions(shard)) for shard in self._held)
        for shard in [shard for shard in self._held if shard not in needed]:
            if used <= self._capacity:
                return
            used -= len(self._positions(shard))
            del self._held[shard]
