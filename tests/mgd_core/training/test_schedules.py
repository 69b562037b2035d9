"""Learning-rate schedules at their corners."""

import itertools
import math

import pytest

from mgd_core.training.schedules import constant, one_cycle, warmup_cosine


def test_warmup_cosine():
    rates = warmup_cosine(10, 1.0, warmup=4, floor=0.1).tolist()
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 2)))
    assert all(a >= b for a, b in itertools.pairwise(rates[4:])) and rates[-1] > 0.1


def test_one_cycle():
    rates = one_cycle(10, 1.0, warmup=4, start=0.2, end=0.0).tolist()
    assert rates[0] == pytest.approx(0.4) and rates[3] == 1.0 and rates[-1] == 0.0 and max(rates) == 1.0


def test_constant():
    assert constant(5, 2.0).tolist() == [2.0] * 5
    assert constant(4, 2.0, warmup=2).tolist() == [1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(("steps", "peak", "warmup"), [(0, 1.0, 0), (5, 0.0, 0), (5, 1.0, 6), (5, float("nan"), 0)])
def test_impossible_schedules_are_refused(steps: int, peak: float, warmup: int):
    for schedule in (warmup_cosine, one_cycle, constant):
        with pytest.raises(ValueError, match="steps >= 1"):
            schedule(steps, peak, warmup)
