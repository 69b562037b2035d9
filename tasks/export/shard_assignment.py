"""Dealing: which copy of which sample goes into which shard, and where in it.

Trainers on WebDataset draw whole shards with replacement, so a sample's weight is one over its shard's size, and copies
that lie close together meet in one batch as false negatives of each other. Hence shards of equal size (to one sample),
filled by dealing a seeded global shuffle round robin. The copies of a uid follow each other in what is dealt, so they
fall into different shards as long as it has no more copies than there are shards. Then each shard is shuffled.

Shuffles are sorts by a keyed hash of (seed, uid, copy) that is written out here: no version of a library changes them.
Cost: two sorts; about 60 bytes of memory a copy.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tasks.tables.uids import Bytes16

CARD = np.dtype([("position", "<i8"), ("copy", "<i4")])
"""A copy of a sample: the sample's position among the subset's uids, and the number of the copy, from 0."""

Cards = npt.NDArray[np.void]
Keys = npt.NDArray[np.uint64]


def shards_needed(total: int, shard_size: int) -> int:
    """Shards that hold `total` samples, at most `shard_size` each."""
    return -(-total // shard_size)


def bounds(total: int, shards: int, number: int) -> tuple[int, int]:
    """Where a shard's cards begin and end among all that `deal` gives."""
    size, larger = divmod(total, shards)
    start = number * size + min(number, larger)
    return start, start + size + (number < larger)


def deal(uids: Bytes16, counts: npt.NDArray[np.int64], shards: int, seed: int) -> Cards:
    """All cards (sum of counts,), shard after shard, in the order of each shard; `bounds` parts them.

    `uids` (n,) are sorted and distinct; `counts` (n,) above 0.
    """
    keys = shuffle_keys(uids, seed)
    order = np.argsort(keys, kind="stable")
    positions = np.repeat(order, counts[order])
    ends = np.cumsum(counts[order])
    copies = np.arange(len(positions)) - np.repeat(ends - counts[order], counts[order])
    within = _mixed(keys[positions] ^ _mixed(copies.astype(np.uint64)))
    cards = np.empty(len(positions), CARD)
    for number in range(shards):
        start, stop = bounds(len(positions), shards, number)
        order = np.argsort(within[number::shards], kind="stable")
        cards["position"][start:stop] = positions[number::shards][order]
        cards["copy"][start:stop] = copies[number::shards][order]
    return cards


def shuffle_keys(uids: Bytes16, seed: int) -> Keys:
    """A 64-bit hash of every uid (n,), keyed by the seed."""
    salt = np.frombuffer(blake2b(f"mgd reshard {seed}".encode(), digest_size=16).digest(), "<u8")
    halves = np.ascontiguousarray(uids).view(">u8").reshape(-1, 2).astype(np.uint64)
    return _mixed(_mixed(halves[:, 0] ^ salt[0]) ^ halves[:, 1] ^ salt[1])


def _mixed(words: Keys) -> Keys:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014), a bijection of 64 bits; arrays wrap around."""
    words = (words + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
