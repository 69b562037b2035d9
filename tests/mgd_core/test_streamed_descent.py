"""Descent over chunks: the counts that one piece gives, whatever the chunks and ties; ranks as a sort gives them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.descent import order_statistics
from mgd_core.descent import steps as descent
from mgd_core.descent.order_statistics import median, ranked
from mgd_core.descent.steps import CountUpdate, exchange_step, mean_in_blocks, scaled_by_count, sign_step
from mgd_core.descent.streamed_descent import Chunk, Chunks, streamed_exchange, streamed_sign

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([-2.0, -0.5, -0.0, 0.0, 1e-300, 1.0, 3.0]), st.booleans()),
    min_size=1,
    max_size=30,
)


def cut(c: np.ndarray, g: np.ndarray, m: np.ndarray, size: int) -> Chunks:
    def chunks() -> Iterator[Chunk]:
        return (Chunk(c[at : at + size], g[at : at + size], m[at : at + size]) for at in range(0, len(c), size))

    return chunks


def joined(updates: Iterator[CountUpdate]) -> tuple[list[int], int, int]:
    parts = list(updates)
    return (
        np.concatenate([p.counts for p in parts]).tolist(),
        sum(p.raised for p in parts),
        sum(p.lowered for p in parts),
    )


@settings(max_examples=200, deadline=None)
@given(ROWS, st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.sampled_from([None, 1, 2]), st.integers(1, 8))
def test_in_chunks_the_counts_are_those_of_one_piece(rows: list, share: float, ceiling: int | None, size: int) -> None:
    c, g, m = (np.array(column) for column in zip(*rows, strict=True))
    one = exchange_step(c, g, m, share, ceiling)
    assert joined(streamed_exchange(cut(c, g, m, size), share, ceiling)) == (
        one.counts.tolist(),
        one.raised,
        one.lowered,
    )
    one = sign_step(c, g, m, ceiling)
    assert joined(streamed_sign(cut(c, g, m, size), ceiling)) == (one.counts.tolist(), one.raised, one.lowered)


@pytest.mark.parametrize("collected", [1, 5, 1 << 22])
def test_ranks_and_medians_are_those_of_a_sort(collected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_statistics, "COLLECTED", collected)
    draw = np.random.default_rng(0)
    for x in (
        draw.normal(size=101),
        draw.integers(-3, 3, 100).astype(float),
        np.array([0.0, -0.0, 5e-324, -5e-324, 1e308, -1e308]),
        np.full(7, -2.5),
        1 + draw.integers(0, 3, 50) * 2.0**-52,
    ):
        parts = np.array_split(x, 4)
        ordered = np.sort(x)
        for rank in range(len(x)):
            place = ranked(lambda parts=parts: iter(parts), rank)
            assert place == (ordered[rank], (x < ordered[rank]).sum(), (x == ordered[rank]).sum())
        assert median(lambda parts=parts: iter(parts), len(x)) == np.median(x)
        with pytest.raises(ValueError, match="ranks are 0 to"):
            ranked(lambda parts=parts: iter(parts), len(x))


def test_a_mean_in_blocks_does_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=1000)
    assert mean_in_blocks([x]) == x.mean(), "one block is numpy's own"
    monkeypatch.setattr(descent, "BLOCK", 64)
    whole = mean_in_blocks([x])
    assert whole == mean_in_blocks(np.split(x, [64, 320, 960])) == pytest.approx(x.mean(), rel=1e-12)


def test_scaled_by_count_by_hand() -> None:
    g, counts = np.array([1.0, -2.0, 30.0, 5.0, 7.0]), np.array([1, 1, 1, 0, 0])
    scaled = scaled_by_count(g, counts, np.array([True, True, True, True, False]))
    np.testing.assert_allclose(scaled, [0.5, -1.0, 4.0, 1.0, 0.0])
