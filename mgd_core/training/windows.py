"""Data order at scale: shards in a seeded order, groups of them permuted as one window.

A full permutation (``order.DataOrder``) asks for samples from everywhere in every batch. Here an epoch is a permutation
of the shards, cut into windows that hold at least ``window`` distinct samples, and each window is a permutation of its
multiset: a batch touches one window, two where one ends, so a training reads each shard once an epoch, and keeps two
windows. A window that holds the pool gives the full permutation.

Batch t is found without drawing any other window but its own and, at the start of an epoch, the one before. Copies of a
sample never meet in a batch: they are spread over their window, those that still meet are swapped apart, and where
swapping cannot do it the window is filled anew, segment by segment (Gale and Ryser's construction). A sample stands at
most window // batch times in an epoch, which makes that possible; copies beyond are left out, as in ``DataOrder``.

Costs a sort of the pool by shard, once, and a sort of a window each time one is entered.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mgd_core.training.order import Indices, generator, spread
from mgd_core.training.parting import fill_segments, part_copies, part_from

SHARDS_STREAM, WINDOW_STREAM = 1, 2  # of an epoch; a single window has the epoch's own, as DataOrder has
HELD = 8
"""Windows whose order is kept."""


class Window(NamedTuple):
    """Consecutive shards of an epoch, and where the window's entries begin in the epoch's."""

    shards: Indices
    start: int


class WindowedOrder:
    """Batches of pool positions for a whole training run, window by window."""

    def __init__(
        self,
        counts: Indices,
        shards: npt.NDArray[np.integer],
        window: int,
        batch: int,
        steps: int,
        seed: int,
        round: int = 0,
    ) -> None:
        """``counts``: (pool size,) whole numbers; ``shards``: (pool size,) number of each sample's shard, from 0;
        ``window``: distinct samples that a window holds at least; ``batch``: rows a step; ``steps``: length.

        Raises:
            ValueError: a window, or the whole subset, holds fewer distinct samples than a batch.
        """
        distinct = int((counts > 0).sum())
        if min(distinct, window) < batch:
            raise ValueError(
                f"a batch needs {batch} distinct samples, but the subset holds {distinct} and a window {window}, so "
                "copies of one pair would meet. Use a smaller batch, a larger window, or stop dropping samples earlier."
            )
        self.counts = np.minimum(counts, window // batch if distinct > window else _most(counts, batch))
        self.window, self.batch, self.steps, self.seed, self.round = window, batch, steps, seed, round
        self._members = np.argsort(shards, kind="stable")
        self._edges = np.concatenate([[0], np.cumsum(np.bincount(shards))])
        self._distinct = np.bincount(shards, self.counts > 0).astype(np.int64)
        self._sizes = np.bincount(shards, self.counts).astype(np.int64)
        self.epoch_size = int(self.counts.sum())
        self.largest = window + int(self._distinct.max())
        """Distinct samples that no window exceeds, but for the last of an epoch, which takes in what is left."""
        self._windows = lru_cache(HELD)(self._cut_windows)
        self._spread_out = lru_cache(HELD)(self._spread_window)
        self._ordered = lru_cache(HELD)(self._order_window)

    def __getitem__(self, t: int) -> Indices:
        """Pool positions (batch,) of step ``t``."""
        parts = []
        for epoch, number, start, stop in self.pieces(t):
            parts.append(self._ordered(epoch, number)[start:stop])
        return np.concatenate(parts)

    @cached_property
    def table(self) -> Indices:
        """All batches, shape (steps, batch)."""
        return np.stack([self[t] for t in range(self.steps)])

    def pieces(self, t: int) -> list[tuple[int, int, int, int]]:
        """What batch ``t`` is made of: epoch, window, and the entries [start, stop) of its order."""
        at, end = t * self.batch, (t + 1) * self.batch
        found = []
        while at < end:
            epoch, offset = divmod(at, self.epoch_size)
            windows = self._windows(epoch)
            number = int(np.searchsorted([window.start for window in windows], offset, side="right")) - 1
            start = offset - windows[number].start
            stop = min(start + end - at, self._length(windows, number))
            found.append((epoch, number, start, stop))
            at += stop - start
        return found

    def shards(self, epoch: int, number: int) -> Indices:
        """The shards of a window, in their order."""
        return self._windows(epoch)[number].shards

    def following(self, t: int) -> Indices:
        """The shards of the window that comes after those of batch ``t``."""
        epoch, number, _, _ = self.pieces(t)[-1]
        last = number + 1 == len(self._windows(epoch))
        return self.shards(epoch + last, 0 if last else number + 1)

    def _cut_windows(self, epoch: int) -> list[Window]:
        """The windows of an epoch; the last takes in what would be less than one."""
        present = np.flatnonzero(self._distinct)
        if self._distinct.sum() <= self.window:
            return [Window(present, 0)]
        order = present[generator(self.seed, self.round, epoch, SHARDS_STREAM).permutation(len(present))]
        edges, held = [0], 0
        for place, shard in enumerate(order.tolist(), 1):
            held += int(self._distinct[shard])
            if held >= self.window:
                edges, held = [*edges, place], 0
        edges[-1] = len(order)
        starts = np.concatenate([[0], np.cumsum(self._sizes[order])])
        return [Window(order[a:b], int(starts[a])) for a, b in pairwise(edges)]

    def _length(self, windows: list[Window], number: int) -> int:
        end = windows[number + 1].start if number + 1 < len(windows) else self.epoch_size
        return end - windows[number].start

    def _spread_window(self, epoch: int, number: int) -> Indices:
        """A window's entries with no copies in one batch, whatever lies before it."""
        windows = self._windows(epoch)
        members = np.sort(
            np.concatenate([self._members[self._edges[s] : self._edges[s + 1]] for s in windows[number].shards])
        )
        stream = () if len(windows) == 1 else (WINDOW_STREAM + number,)
        draws = generator(self.seed, self.round, epoch, *stream)
        entries = members[spread(self.counts[members], draws)]
        segments = self._segments(epoch, number, len(entries))
        if not part_copies(entries, segments):
            entries = fill_segments(members, self.counts[members], segments, draws)
        return entries

    def _order_window(self, epoch: int, number: int) -> Indices:
        """A window's entries, apart also from those of the epoch before in the batch that they share."""
        entries = self._spread_out(epoch, number)
        segments = self._segments(epoch, number, len(entries))
        if number or not epoch or self._begins(epoch, 0) % self.batch == 0:
            return entries
        last = len(self._windows(epoch - 1)) - 1
        before = self._spread_out(epoch - 1, last)
        shared = before[self._segments(epoch - 1, last, len(before)) == segments[0]]
        entries = entries.copy()
        part_from(entries, segments, shared)
        return entries

    def _begins(self, epoch: int, number: int) -> int:
        return epoch * self.epoch_size + self._windows(epoch)[number].start

    def _segments(self, epoch: int, number: int, n: int) -> Indices:
        """Batch (n,) that each entry of a window belongs to."""
        return np.asarray((self._begins(epoch, number) + np.arange(n)) // self.batch)


def _most(counts: Indices, batch: int) -> int:
    """The largest number of copies that a pool of one window can keep apart: k with sum(min(counts, k)) >= k batch."""
    k = 1
    while k < int(counts.max()) and int(np.minimum(counts, k + 1).sum()) >= (k + 1) * batch:
        k += 1
    return k
