"""The count update: from metagradients to the next round's counts.

``sign`` (Engstrom et al. 2025, arXiv 2503.13751, Algorithm 1): c <- max(0, c - sign(g) m) with m ~ Bernoulli(p).
``exchange`` (its appendix C.2): among the masked samples, the share with the lowest g gains one copy and as many of the
highest g with c > 0 lose one, so that the total stays. The mask m is a pure function of (seed, round, uid), so only
masked samples need a probe and any machine can compute it again.
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
    key = hashlib.blake2b(f"mgd mask {seed} {round}".encode(), digest_size=32).digest()
    padded = uids.astype("S16").tobytes()  # numpy drops trailing zero bytes of single S16 items
    draws = (hashlib.blake2b(padded[at : at + 16], key=key, digest_size=8).digest() for at in range(0, len(padded), 16))
    uniform = np.frombuffer(b"".join(draws), "<u8").astype(np.float64) / 2.0**64
    return uniform < p


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


def mean_in_blocks(numbers: Gradients) -> float:
    """The mean of numbers (n,), summed in blocks of BLOCK and these in order: the same bits wherever it is taken."""
    return sum(float(numbers[at : at + BLOCK].sum()) for at in range(0, len(numbers), BLOCK)) / len(numbers)


def _ceiling(counts: Counts, ceiling: int | None) -> Counts:
    top = np.iinfo(np.int64).max if ceiling is None else ceiling
    return np.maximum(counts, top)  # a ceiling stops raises; it never lowers by itself


def _update(old: Counts, new: Counts) -> CountUpdate:
    return CountUpdate(new, int((new > old).sum()), int((new < old).sum()))
