"""The count updates of `descent` over chunks: for more samples than fit in memory, to the same counts.

`sign` moves each sample by its own g, in one pass. `exchange` needs to know who has the lowest and who the highest g of
all: their ranks become two cuts, found by `order_statistics`, and the last pass compares each sample with them. Samples
that tie with a cut are told apart by position, as a stable sort does.

Cost: one chunk in memory; one pass over the samples for `sign`, about ten for `exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mgd_core.descent.order_statistics import Numbers, Place, ranked
from mgd_core.descent.steps import Counts, CountUpdate, Gradients, Mask, sign_step

NO_CEILING = np.iinfo(np.int64).max


class Chunk(NamedTuple):
    """Consecutive samples: counts, g, and whether they move, each (n,)."""

    counts: Counts
    g: Gradients
    moving: Mask


Chunks = Callable[[], Iterator[Chunk]]
"""Gives the same chunks at every call."""
Mark = Callable[[Numbers, Mask], Mask]


def streamed_sign(chunks: Chunks, ceiling: int | None = None) -> Iterator[CountUpdate]:
    """`descent.sign_step`, chunk by chunk."""
    for chunk in chunks():
        yield sign_step(chunk.counts, chunk.g, chunk.moving, ceiling)


def streamed_exchange(chunks: Chunks, share: float, ceiling: int | None = None) -> Iterator[CountUpdate]:
    """`descent.exchange_step`, chunk by chunk; the cuts are found before the first."""
    top = NO_CEILING if ceiling is None else ceiling
    quota = int(share * sum(int(chunk.moving.sum()) for chunk in chunks()))

    def may_rise() -> Iterator[Numbers]:
        return (chunk.g[chunk.moving & (chunk.counts < top)] for chunk in chunks())

    def picked() -> Iterator[tuple[Chunk, Mask]]:
        """Chunks, and who of them is picked to rise, and so does not fall, even where fewer can fall than rise."""
        mark = wanted.marker()
        return ((chunk, mark(chunk.g, chunk.moving & (chunk.counts < top))) for chunk in chunks())

    def may_fall() -> Iterator[Numbers]:
        return (-chunk.g[chunk.moving & (chunk.counts > 0) & ~taken] for chunk, taken in picked())

    wanted = _lowest(may_rise, quota)
    unwanted = _lowest(may_fall, wanted.quota, last_first=True)
    rises = wanted if unwanted.quota == wanted.quota else _lowest(may_rise, unwanted.quota)
    rising, falling = rises.marker(), unwanted.marker()
    for chunk, taken in picked():
        up = rising(chunk.g, chunk.moving & (chunk.counts < top))
        down = falling(-chunk.g, chunk.moving & (chunk.counts > 0) & ~taken)
        yield CountUpdate(chunk.counts + up - down, int(up.sum()), int(down.sum()))


@dataclass(frozen=True)
class _Cut:
    """The `quota` lowest of some numbers: those below `place`, and of its equals the first (or the last)."""

    place: Place | None
    quota: int
    last_first: bool = False

    def marker(self) -> Mark:
        """Marks who is among them, chunk by chunk from the first: mark(numbers (n,), eligible (n,)) -> (n,)."""
        place, seen = self.place, 0
        if place is None:
            return lambda numbers, eligible: np.zeros_like(eligible)
        wanted = self.quota - place.below
        first, end = (place.equal - wanted, place.equal) if self.last_first else (0, wanted)

        def mark(numbers: Numbers, eligible: Mask) -> Mask:
            nonlocal seen
            ties = np.flatnonzero(eligible & (numbers == place.value))
            marked = eligible & (numbers < place.value)
            marked[ties[max(0, first - seen) : max(0, end - seen)]] = True
            seen += len(ties)
            return marked

        return mark


def _lowest(numbers: Callable[[], Iterator[Numbers]], quota: int, last_first: bool = False) -> _Cut:
    quota = min(quota, sum(len(some) for some in numbers()))
    return _Cut(ranked(numbers, quota - 1) if quota else None, quota, last_first)
