"""Paired drops: the closed form of counts, and the bound of their ratio against a search."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.studies.paired_drops import paired_drop
from testing.paired_ratios import ONE_SIDED, least_ratio

Answers = list[int]


def _answers(n: int, drops: tuple[float, float], seed: int) -> tuple[Answers, Answers, Answers]:
    draw = np.random.default_rng(seed)
    before = draw.random(n) < 0.5
    models = [np.where(draw.random(n) < 0.1, draw.random(n) < 0.5, before) & (draw.random(n) > x) for x in drops]
    return before.astype(int).tolist(), *(x.astype(int).tolist() for x in models)


def test_the_error_is_that_of_pictures_lost_and_won() -> None:
    before, after, _ = _answers(500, (0.2, 0.0), 0)
    lost, won = (sum(a > b for a, b in zip(*pair, strict=True)) for pair in ((before, after), (after, before)))
    drop = paired_drop(before, after)
    assert drop.mean == pytest.approx((lost - won) / 500)
    assert drop.error**2 == pytest.approx((lost + won - (lost - won) ** 2 / 500) / 500**2)
    assert paired_drop(before, before) == (0.0, 0.0)


@pytest.mark.parametrize("drops", [(0.3, 0.1), (0.2, 0.02), (0.2, 0.0), (0.05, 0.3), (0.0, 0.1)])
@pytest.mark.parametrize("seed", range(3))
def test_the_least_ratio_is_where_a_search_stops_refuting(drops: tuple[float, float], seed: int) -> None:
    before, after, rival = _answers(2000, drops, seed)
    a, b = (np.array(before) - np.array(x) for x in (after, rival))
    grid = np.linspace(0, 400, 40_001)
    mean, error = a.mean() - grid * b.mean(), []
    va, vb, c = a.var(), b.var(), ((a - a.mean()) * (b - b.mean())).mean()
    error = np.sqrt((va - 2 * grid * c + grid**2 * vb) / len(a))
    kept = grid[mean <= ONE_SIDED * error]
    found = least_ratio(before, after, rival)
    assert found == pytest.approx(kept[0], abs=0.02) if len(kept) else found > 390


def test_nothing_lost_is_no_ratio_and_a_rival_that_helps_refutes_all() -> None:
    before, after = [1, 0] * 100, [0] * 200
    assert least_ratio(before, before, after) == 0
    assert least_ratio(before, after, [1] * 200) == np.inf
