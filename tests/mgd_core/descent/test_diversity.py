"""The cap of groups: the best sets by brute force are those of the lowest values."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mgd_core.descent.diversity import diminishing


def worth(chosen: tuple[int, ...], g: np.ndarray, groups: np.ndarray, strength: float) -> float:
    total = 0.0
    for group in set(groups[list(chosen)]):
        helpful = sorted((-g[i] for i in chosen if groups[i] == group and g[i] < 0), reverse=True)
        total += sum(b * r**-strength for r, b in enumerate(helpful, start=1))
        total -= sum(g[i] for i in chosen if groups[i] == group and g[i] >= 0)
    return total


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_the_lowest_are_the_best_set_of_their_size(strength: float, size: int) -> None:
    draw = np.random.default_rng(size)
    g, groups = draw.normal(-0.3, 1, 11), draw.integers(0, 3, 11)
    values = diminishing(g, groups, strength)
    found = tuple(np.argsort(values, kind="stable")[:size].tolist())
    best = max(worth(one, g, groups, strength) for one in combinations(range(11), size))
    assert worth(found, g, groups, strength) == pytest.approx(best, rel=1e-12)
    assert -values[list(found)].sum() == pytest.approx(best, rel=1e-12)


def test_what_harms_and_strength_0_stay_as_they_are() -> None:
    g, groups = np.array([-1.0, 2.0, -1.0, 0.0]), np.array([0, 0, 0, 1])
    assert diminishing(g, groups, 0.0).tolist() == g.tolist()
    assert diminishing(g, groups, 1.0).tolist() == [-1.0, 2.0, -0.5, 0.0]
    assert diminishing(g[:0], groups[:0], 1.0).tolist() == []
