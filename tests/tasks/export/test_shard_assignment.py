"""Dealing: every copy once, shards of equal size, copies apart, and an order that looks random and never changes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.export.shard_assignment import bounds, deal, shards_needed, shuffle_keys
from tasks.files.artefacts import digest
from tasks.tables.uids import Bytes16, uid_bytes


def uids(n: int) -> Bytes16:
    return uid_bytes([f"{i:x}" for i in range(n)])


def hands(counts: list[int], shards: int, seed: int) -> list[list[tuple[int, int]]]:
    cards = deal(uids(len(counts)), np.array(counts), shards, seed).tolist()
    return [cards[slice(*bounds(len(cards), shards, number))] for number in range(shards)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 5))
def test_dealing_is_even_and_parts_copies(counts: list[int], shards: int, seed: int) -> None:
    """Every copy once; sizes within one; copies of a uid as far apart as the number of shards allows."""
    shards = min(shards, sum(counts))
    dealt = hands(counts, shards, seed)
    assert sorted(card for hand in dealt for card in hand) == [(i, c) for i, n in enumerate(counts) for c in range(n)]
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    for hand in dealt:
        most = Counter(position for position, _ in hand)
        assert all(n <= -(-counts[position] // shards) for position, n in most.items())


@given(st.integers(1, 1000), st.integers(1, 50))
def test_shards_hold_no_more_than_their_size(total: int, size: int) -> None:
    shards = shards_needed(total, size)
    parts = [bounds(total, shards, number) for number in range(shards)]
    assert parts[0][0] == 0 and parts[-1][1] == total
    assert all(stop - start <= size for start, stop in parts)
    assert all(before[1] == after[0] for before, after in pairwise(parts))


def test_the_shuffle_never_changes() -> None:
    """A change of these digests is a change of every export's bytes: raise reshard_plans.VERSION with it."""
    assert digest(deal(uids(100), np.arange(1, 101) % 7 + 1, 9, 3).tobytes()) == "47d15b4e8af4b87359b75760f3a499dc"
    assert digest(shuffle_keys(uids(100), 3).astype("<u8").tobytes()) == "847052e64021bee4223de865a609ae8b"


def test_the_shuffle_looks_random() -> None:
    """Neighbours among uids, and the same uid under another seed, land independently: correlations within 5 sigma."""
    n = 20_000
    keys = [shuffle_keys(uids(n), seed) / 2.0**64 for seed in (0, 1)]
    assert all(abs(np.mean(key) - 0.5) < 5 / np.sqrt(12 * n) for key in keys)
    pairs = [(keys[0], keys[1]), (keys[0][1:], keys[0][:-1]), (keys[0], np.arange(n))]
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n) for a, b in pairs)
    ranks = np.argsort(deal(uids(n), np.ones(n, np.int64), 4, 0)["position"])
    assert abs(np.corrcoef(ranks, np.arange(n))[0, 1]) < 5 / np.sqrt(n)
    assert abs(
        np.corrcoef(ranks, np.argsort(deal(uids(n), np.ones(n, np.int64), 4, 1)["position"]))[0, 1]
    ) < 5 / np.sqrt(n)
