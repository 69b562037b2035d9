"""Windowed order: every epoch is the multiset, shard by shard; a window that holds the pool is the full permutation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.training.order import DataOrder, Indices
from mgd_core.training.parting import fill_segments, part_copies
from mgd_core.training.windows import WindowedOrder


def pool(n: int, shards: int, seed: int, most: int = 1) -> tuple[Indices, Indices]:
    """Counts (n,) up to ``most`` (some 0 where that is above 1), and each sample's shard."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0 if most > 1 else 1, most + 1, n)
    return counts, rng.integers(0, shards, n)


def order(counts: Indices, shards: Indices, window: int, batch: int, epochs: int = 3, seed: int = 0) -> WindowedOrder:
    steps = epochs * int(counts.sum()) // batch
    return WindowedOrder(counts, shards, window, batch, steps, seed, round=2)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 9), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_an_epoch_is_the_multiset_in_windows_of_whole_shards(seed: int, shards: int, batch: int, most: int) -> None:
    counts, shard = pool(60, shards, seed, most)
    window = 2 * batch
    if (counts > 0).sum() < window:
        return
    made = order(counts, shard, window, batch)
    stream = made.table.ravel()
    capped = made.counts
    assert (capped <= counts).all() and ((capped == counts) | (counts > 2)).all()
    for epoch in range(len(stream) // made.epoch_size):
        own = stream[epoch * made.epoch_size : (epoch + 1) * made.epoch_size]
        assert np.array_equal(np.bincount(own, minlength=60), capped)
        at, seen = 0, list[int]()
        for number in range(len(made._windows(epoch))):
            members = np.isin(shard, made.shards(epoch, number))
            size = int(capped[members].sum())
            assert set(own[at : at + size]) == set(np.flatnonzero(members & (capped > 0)))
            assert (capped[members] > 0).sum() >= min(window, (capped > 0).sum())
            at, seen = at + size, [*seen, *made.shards(epoch, number)]
        assert sorted(seen) == sorted(set(shard[counts > 0]))


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 6), st.integers(1, 6))
@settings(max_examples=80, deadline=None)
def test_copies_never_meet_in_a_batch(seed: int, shards: int, batch: int, most: int) -> None:
    counts, shard = pool(50, shards, seed, most)
    for window in (3 * batch, 50):
        if (counts > 0).sum() < 3 * batch:
            return
        for rows in order(counts, shard, window, batch).table:
            assert len(set(rows)) == batch


def test_a_window_that_holds_the_pool_is_the_full_permutation() -> None:
    """Where nothing has to be moved, bit for bit the order of `DataOrder`."""
    counts, shard = pool(48, 5, 0)
    made = WindowedOrder(counts, shard, 48, 6, 24, seed=3, round=1)
    assert np.array_equal(made.table, DataOrder(counts, 6, 24, seed=3, round=1).table)
    assert not np.array_equal(made.table, WindowedOrder(counts, shard, 12, 6, 24, seed=3, round=1).table)
    # With copies, and epochs that end within a batch, all but those that were moved stand where they did.
    counts = np.random.default_rng(1).integers(0, 3, 400)
    made = WindowedOrder(counts, np.zeros(400, np.int64), 400, 7, 200, seed=3)
    full = DataOrder(counts, 7, 1, seed=3)
    epochs = np.concatenate([full.epoch(e) for e in range(5)])[:1400]
    assert (made.table.ravel() == epochs).mean() > 0.95


def test_a_batch_draws_its_own_windows_only() -> None:
    counts, shard = pool(600, 30, 0, 3)
    whole = order(counts, shard, 60, 16)
    for t in (0, 17, 40, len(whole.table) - 1):
        alone = order(counts, shard, 60, 16)
        drawn = set[tuple[int, int]]()
        plain = alone._spread_window
        alone._spread_out = lambda epoch, number, plain=plain, drawn=drawn: (  # type: ignore[assignment]
            drawn.add((epoch, number)) or plain(epoch, number)
        )
        assert np.array_equal(alone[t], whole.table[t])
        own = {(epoch, number) for epoch, number, _, _ in whole.pieces(t)}
        before = {(e - 1, len(whole._windows(e - 1)) - 1) for e, number in own if not number and e}
        assert own <= drawn <= own | before and len(own) <= 2


def test_each_shard_is_read_once_an_epoch_by_who_keeps_two_windows() -> None:
    """Shards as a reader with room for two windows meets them: anew once an epoch, and once more where one is parted
    from the next epoch's."""
    counts, shard = pool(2000, 40, 0)
    made = order(counts, shard, 250, 20, epochs=4)
    held: list[int] = []
    reads = 0
    for rows in made.table:
        for one in dict.fromkeys(shard[rows].tolist()):
            reads += one not in held
            held = [*(other for other in held if other != one), one][-12:]  # 2 windows of 5 or 6 shards
    assert 4 * 40 - 12 <= reads <= 4 * 40


def test_seeds_rounds_and_epochs_differ_and_equal_ones_do_not() -> None:
    counts, shard = pool(90, 9, 0, 2)
    one = WindowedOrder(counts, shard, 20, 5, 30, seed=1)
    assert np.array_equal(one.table, WindowedOrder(counts, shard, 20, 5, 30, seed=1).table)
    assert np.array_equal(WindowedOrder(counts, shard, 20, 5, 7, seed=1).table, one.table[:7])
    for other in (WindowedOrder(counts, shard, 20, 5, 30, seed=2), WindowedOrder(counts, shard, 20, 5, 30, 1, round=1)):
        assert not np.array_equal(one.table, other.table)
    assert [list(one.shards(0, n)) for n in range(3)] != [list(one.shards(1, n)) for n in range(3)]


def test_what_swaps_cannot_part_is_filled_anew() -> None:
    """Four samples, two copies each, in batches of 2, 4 and 2: only 'half, all, the other half' keeps copies apart."""
    entries, segments = np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.array([0, 0, 1, 1, 1, 1, 2, 2])
    for seed in range(20):
        filled = fill_segments(np.arange(4), np.full(4, 2), segments, np.random.default_rng(seed))
        assert np.array_equal(np.bincount(filled), [2, 2, 2, 2])
        assert all(len(set(filled[segments == s])) == (segments == s).sum() for s in range(3))
    swapped = entries.copy()
    assert part_copies(swapped, segments) in (True, False)
    assert np.array_equal(np.bincount(swapped), [2, 2, 2, 2])


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="the subset holds 3 and a window 8"):
        WindowedOrder(np.array([1, 2, 0, 1]), np.zeros(4, np.int64), 8, 4, 10, seed=0)
    with pytest.raises(ValueError, match="holds 20 and a window 3"):
        WindowedOrder(np.ones(20, np.int64), np.zeros(20, np.int64), 3, 4, 10, seed=0)
