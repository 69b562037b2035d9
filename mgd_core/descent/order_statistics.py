"""Exact order statistics of more numbers than fit in memory, read in chunks, as often as it takes.

The bits of a float64, with the sign's turned over (and all of a negative number's), sort as the number does. A pass
counts the numbers by their first bits; the next ones look only at those that share them with the one sought, until few
enough are left to sort. Two passes do in almost every case, five in any.

Cost: a pass over the numbers at a time, 2 MiB for the counts and at most 8 * COLLECTED bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WIDTHS = (18, 16, 15, 15)
COLLECTED = 1 << 22
"""Numbers that are sorted at once."""

Numbers = npt.NDArray[np.float64]
Chunks = Callable[[], Iterator[Numbers]]
"""Gives the same finite numbers at every call."""
Keys = npt.NDArray[np.uint64]


class Place(NamedTuple):
    """A number by its rank: its value, how many are below it, and how many equal it."""

    value: float
    below: int
    equal: int


def ranked(chunks: Chunks, rank: int) -> Place:
    """The number of a rank, from 0, among all numbers in ascending order.

    Raises ValueError where there are not so many.
    """
    prefix, shift, below = 0, 64, 0
    for width in WIDTHS:
        counts = np.zeros(1 << width, np.int64)
        for numbers in chunks():
            keys = _sharing(_keys(numbers), prefix, shift)
            digits = (keys >> np.uint64(shift - width)) & np.uint64((1 << width) - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=len(counts))
        ends = below + np.cumsum(counts)
        if not below <= rank < ends[-1]:
            raise ValueError(f"rank {rank:,} of {ends[-1]:,} numbers; ranks are 0 to one less than there are")
        digit = int(np.searchsorted(ends, rank, side="right"))
        below, shift = int(ends[digit] - counts[digit]), shift - width
        prefix = (prefix << width) | digit
        if counts[digit] <= COLLECTED and shift:
            return _among(chunks, prefix, shift, below, rank)
    return Place(_value(prefix), below, int(counts[digit]))


def median(chunks: Chunks, n: int) -> float:
    """The median of all n numbers, as numpy takes it: the mean of the two in the middle where n is even."""
    low = ranked(chunks, (n - 1) // 2)
    high = low if low.below + low.equal > n // 2 else ranked(chunks, n // 2)
    return float(np.mean([low.value, high.value]))


def _among(chunks: Chunks, prefix: int, shift: int, below: int, rank: int) -> Place:
    """The number of a rank among those whose key begins with `prefix`; `below` have a lesser one."""
    parts = [_sharing(_keys(numbers), prefix, shift) for numbers in chunks()]
    keys = np.sort(np.concatenate(parts))
    key = keys[rank - below]
    first, last = np.searchsorted(keys, key), np.searchsorted(keys, key, side="right")
    return Place(_value(int(key)), below + int(first), int(last - first))


def _keys(numbers: Numbers) -> Keys:
    bits = (numbers + 0.0).view(np.uint64)  # -0.0 becomes 0.0, which it equals
    return np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(1 << 63))


def _sharing(keys: Keys, prefix: int, shift: int) -> Keys:
    """The keys whose bits above `shift` are `prefix`."""
    return keys if shift == 64 else keys[keys >> np.uint64(shift) == np.uint64(prefix)]


def _value(key: int) -> float:
    bits = key ^ (1 << 63) if key >> 63 else key ^ ((1 << 64) - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])
