"""The count update: from metagradients to the next round's counts.

``sign`` (Engstrom et al. 2025, arXiv 2503.13751, Algorithm 1): c <- max(0, c - sign(g) m) with m ~ Bernoulli(p).
``exchange`` (its appendix C.2): among the masked samples, the share with the lowest g gains one copy and as many of the
highest g with c > 0 lose one, so that the total stays. ``confident`` is the same, where intervals of g say so.
The mask m is a pure function of (seed, round, uid), so only masked samples need a probe and any machine can compute it
again.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SCALE_FLOOR = 0.03  # of the pool's root mean square; keeps the order of a single round
OUTLIER = 4.0  # median sizes; beyond it a g counts no more than one of this size
BLOCK = 1 << 20  # numbers that are summed at once
TINY = float(np.finfo(float).tiny)  # where a size is 0

Counts = npt.NDArray[np.int64]
Gradients = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class CountUpdate(NamedTuple):
    """New counts and how many samples moved."""

    counts: Counts
    raised: int
    lowered: int


def mask(uids: npt.NDArray[np.bytes_], seed: int, round: int, p: float) -> Mask:
    """m ~ Bernoulli(p) of every uid (n,) of 16 bytes, from a keyed hash of (seed, round, uid).

    Independent of the order and of the other members of ``uids``.
    """
    if p >= 1:
        return np.ones(len(uids), bool)
    return uniform(uids, f"mgd mask {seed} {round}") < p


def uniform(uids: npt.NDArray[np.bytes_], stream: str) -> Gradients:
    """A number in [0, 1) of every uid (n,) of 16 bytes, from a keyed hash of ``stream`` and it alone."""
    key = hashlib.blake2b(stream.encode(), digest_size=32).digest()
    padded = uids.astype("S16").tobytes()  # numpy drops trailing zero bytes of single S16 items
    draws = (hashlib.blake2b(padded[at : at + 16], key=key, digest_size=8).digest() for at in range(0, len(padded), 16))
    return np.frombuffer(b"".join(draws), "<u8").astype(np.float64) / 2.0**64


def sign_step(counts: Counts, g: Gradients, masked: Mask, ceiling: int | None = None) -> CountUpdate:
    """c <- clip(c - sign(g) m, 0, ceiling)."""
    moved = counts - np.sign(g).astype(np.int64) * masked
    return _update(counts, np.clip(moved, 0, _ceiling(counts, ceiling)))


def exchange_step(counts: Counts, g: Gradients, masked: Mask, share: float, ceiling: int | None = None) -> CountUpdate:
    """Raise the ``share`` of masked samples with the lowest g (below ``ceiling``), lower as many of the highest."""
    members = np.flatnonzero(masked)
    quota = int(share * len(members))
    ascending = members[np.argsort(g[members], kind="stable")]
    up = ascending[counts[ascending] < _ceiling(counts, ceiling)[ascending]][:quota]
    descending = ascending[::-1]
    down = descending[(counts[descending] > 0) & ~np.isin(descending, up)][: len(up)]
    up = up[: len(down)]
    new = counts.copy()
    new[up] += 1
    new[down] -= 1
    return _update(counts, new)


def confident_step(
    counts: Counts, g: Gradients, errors: Gradients, masked: Mask, share: float, z: float, ceiling: int | None = None
) -> CountUpdate:
    """As `exchange_step`, where it is sure: each g (n,) has an interval of +- ``z`` of its ``errors`` (n,).

    Those whose interval ends lowest gain a copy, those whose interval begins highest lose one; the first of each are a
    pair, and so on, as long as the intervals of a pair do not meet: what loses a copy is then worse than what gains
    one. At most ``share`` of the masked samples gain one.
    """
    members, top = np.flatnonzero(masked), _ceiling(counts, ceiling)
    ends, begins = g[members] + z * errors[members], g[members] - z * errors[members]
    rising, falling = np.argsort(ends, kind="stable"), np.argsort(begins, kind="stable")[::-1]
    rising = rising[counts[members][rising] < top[members][rising]][: int(share * len(members))]
    falling = falling[counts[members][falling] > 0][: len(rising)]
    rising = rising[: len(falling)]
    sure = int((ends[rising] < begins[falling]).sum())  # ends ascend and begins descend; nobody is in both
    new = counts.copy()
    new[members[rising[:sure]]] += 1
    new[members[falling[:sure]]] -= 1
    return _update(counts, new)


def mean_in_blocks(numbers: Gradients) -> float:
    """The mean of numbers (n,), summed in blocks of BLOCK and these in order: the same bits wherever it is taken."""
    return sum(float(numbers[at : at + BLOCK].sum()) for at in range(0, len(numbers), BLOCK)) / len(numbers)


def _ceiling(counts: Counts, ceiling: int | None) -> Counts:
    top = np.iinfo(np.int64).max if ceiling is None else ceiling
    return np.maximum(counts, top)  # a ceiling stops raises; it never lowers by itself


def _update(old: Counts, new: Counts) -> CountUpdate:
    return CountUpdate(new, int((new > old).sum()), int((new < old).sum()))
