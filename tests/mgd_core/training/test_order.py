"""Data order: a pure function that visits by count and keeps copies apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.training.order import DataOrder, Indices, generator


def counts(*values: int) -> Indices:
    return np.array(values, np.int64)


MIXED = counts(1, 3, 0, 2, 1, 5, 1, 1, 2, 0, 1, 4, 1, 1, 1)


@given(st.lists(st.integers(0, 4), min_size=8, max_size=40), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_an_epoch_holds_each_example_count_times_but_at_most_once_a_batch(values: list[int], number: int):
    c = counts(*values)
    if (c > 0).sum() < 2:
        return
    epoch = DataOrder(c, 2, 1, seed=0).epoch(number)
    batches = -(-c.sum() // 2)
    assert np.array_equal(np.bincount(epoch, minlength=len(c)), np.minimum(c, batches))


@given(st.lists(st.integers(0, 6), min_size=12, max_size=30), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_copies_never_meet_in_a_batch(values: list[int], seed: int):
    c = counts(*values)
    if (c > 0).sum() < 5:
        return
    for batch in DataOrder(c, 5, 15, seed).table:
        assert len(set(batch)) == 5 and (c[batch] > 0).all()


def test_visits_follow_the_counts():
    epochs = 30
    order = DataOrder(MIXED, 4, epochs * MIXED.sum() // 4, seed=0)  # 6 batches an epoch, 5 copies at most
    visits = np.bincount(order.table.ravel(), minlength=len(MIXED))
    assert np.abs(visits / epochs - MIXED).max() < 0.2


def test_copies_are_spread_over_an_epoch():
    c = counts(*([1] * 90), 3, 3)
    for number in range(5):
        epoch = DataOrder(c, 8, 1, seed=0).epoch(number)
        for heavy in (90, 91):
            places = np.flatnonzero(epoch == heavy) / len(epoch)
            assert len(places) == 3 and places[0] < 0.5 < places[2] and places[2] - places[0] > 1 / 3


def test_the_same_arguments_give_the_same_order():
    np.random.seed(0)
    first = DataOrder(MIXED, 4, 20, seed=3, round=1).table
    np.random.seed(1)
    np.random.random(5)
    assert np.array_equal(first, DataOrder(MIXED.copy(), 4, 20, seed=3, round=1).table)
    assert not np.array_equal(first, DataOrder(MIXED, 4, 20, seed=4, round=1).table)
    assert not np.array_equal(first, DataOrder(MIXED, 4, 20, seed=3, round=2).table)


def test_a_shorter_training_is_a_prefix_of_a_longer_one():
    long = DataOrder(MIXED, 4, 50, seed=0)
    assert np.array_equal(DataOrder(MIXED, 4, 17, seed=0).table, long.table[:17])
    assert np.array_equal(long[16], long.table[16])


def test_uniform_counts_are_plain_epochs():
    order = DataOrder(np.ones(12, np.int64), 4, 6, seed=0)
    for epoch in (order.table[:3], order.table[3:]):
        assert sorted(epoch.ravel()) == list(range(12))


def test_a_subset_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="3 distinct examples but a batch needs 4"):
        DataOrder(counts(9, 9, 0, 9), 4, 10, seed=0)


def test_streams_are_independent_of_each_other():
    assert generator(0, 1).random() == generator(0, 1).random() != generator(0, 2).random()
