"""Parting copies: entries in an order, cut into segments (batches), so that no segment holds one entry twice.

First by swaps of what meets with the nearest entry that fits, which leaves the order as it is but for a few; where
swaps do not get there, by filling the segments anew. Costs a sort of the entries, and a walk for each that meets its
copy.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mgd_core.training.order import Indices


def part_copies(entries: Indices, segments: Indices) -> bool:
    """Swap entries (n,), in place, until none stands twice in a segment (n,); False where swaps do not get there."""
    keys = np.lexsort((np.arange(len(entries)), entries, segments))
    twice = (entries[keys][1:] == entries[keys][:-1]) & (segments[keys][1:] == segments[keys][:-1])
    repeats = keys[1:][twice]
    if not len(repeats):
        return True
    held = _pairs(entries, segments, np.isin(entries, entries[repeats]) | np.isin(segments, segments[repeats]))
    extra = {(int(segments[p]), int(entries[p])): 0 for p in repeats.tolist()}
    for p in repeats.tolist():
        extra[int(segments[p]), int(entries[p])] += 1
    return all(_swapped(entries, segments, p, held, extra) for p in np.sort(repeats).tolist())


def part_from(entries: Indices, segments: Indices, shared: Indices) -> None:
    """Swap those of the first segment that are among ``shared``, in place, with others that are not; but for the last
    segment, which the next epoch counts on. What cannot be swapped stays."""
    first = int(segments[0])
    held = _pairs(entries, segments, np.isin(entries, shared) | (segments == first))
    held |= {(first, one) for one in shared.tolist()}
    inner = int(np.searchsorted(segments, segments[-1]))
    for p in np.flatnonzero((segments == first) & np.isin(entries, shared)).tolist():
        _swapped(entries[:inner], segments[:inner], p, held, {(first, int(entries[p])): 1})


def _swapped(
    entries: Indices, segments: Indices, p: int, held: set[tuple[int, int]], extra: dict[tuple[int, int], int]
) -> bool:
    """Swap entry ``p``, which its segment has once too often, with the nearest that fits; whether there is one."""
    x, s = int(entries[p]), int(segments[p])
    for q in _outward(p, len(entries)):
        y, r = int(entries[q]), int(segments[q])
        if r == s or (r, x) in held or (s, y) in held or extra.get((r, y), 0):
            continue
        entries[p], entries[q] = y, x
        extra[s, x] -= 1
        held.discard((r, y))
        held |= {(r, x), (s, y)}
        return True
    return False


def _pairs(entries: Indices, segments: Indices, mask: npt.NDArray[np.bool_]) -> set[tuple[int, int]]:
    """(segment, entry) of those in the mask: all that swaps will ask about."""
    return set(zip(segments[mask].tolist(), entries[mask].tolist(), strict=True))


def _outward(p: int, n: int) -> Iterator[int]:
    """0 to n - 1 but ``p``, by distance from it."""
    for distance in range(1, n):
        if p + distance < n:
            yield p + distance
        if p - distance >= 0:
            yield p - distance


def fill_segments(members: Indices, counts: Indices, segments: Indices, draws: np.random.Generator) -> Indices:
    """Entries (n,) that hold ``members[i]`` ``counts[i]`` times, none twice in a segment, where that is possible.

    Each member in turn goes to the segments with most room left, which finds a filling if there is one (Gale 1957,
    Ryser 1957); what does not fit takes what room is left.
    """
    numbers, sizes = np.unique(segments, return_counts=True)
    room = sizes.copy()
    chosen: list[list[int]] = [[] for _ in numbers]
    over: list[int] = []
    for i in np.argsort(-counts + draws.random(len(counts)), kind="stable").tolist():
        most = np.argsort(-room + draws.random(len(room)), kind="stable")[: int(counts[i])]
        for segment in most.tolist():
            if room[segment]:
                chosen[segment].append(int(members[i]))
                room[segment] -= 1
            else:
                over.append(int(members[i]))
        over += [int(members[i])] * (int(counts[i]) - len(most))
    for segment in range(len(numbers)):
        while room[segment]:
            chosen[segment].append(over.pop())
            room[segment] -= 1
    return np.concatenate([np.array(own, np.int64)[draws.permutation(len(own))] for own in chosen])
