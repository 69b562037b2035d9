"""Plans: the closed form against dynamic programming, and every plan run by a simulator."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.plans import Advance, Free, Load, Plan, Reverse, Save, Turn, binomial, keep_all


@cache
def least_advances(steps: int, slots: int) -> int:
    """Griewank & Walther's recursion, with the first state in one of the slots."""
    if steps == 1:
        return 0
    if slots == 1:
        return steps * (steps - 1) // 2
    splits = range(1, steps)
    return min(m + least_advances(steps - m, slots - 1) + least_advances(m, slots) for m in splits)


def simulate(plan: Plan) -> tuple[int, int, list[int]]:
    """Run a plan on step numbers only: its advances, most states kept at once, and the order of reversal."""
    working: int = plan.start
    kept: set[int] = set()
    advances, peak, turned, reversed_steps = 0, 0, False, []
    for action in plan:
        match action:
            case Advance(start, stop):
                assert working == start < stop
                working, advances = stop, advances + stop - start
            case Save(step):
                assert working == step and step not in kept
                kept.add(step)
                peak = max(peak, len(kept))
            case Load(step):
                assert step in kept
                working = step
            case Free(step):
                kept.remove(step)
            case Turn(step):
                assert working == step == plan.stop - 1 and not turned
                turned = True
            case Reverse(step):
                assert working == step and turned
                reversed_steps.append(step)
    assert not kept, "a plan frees what it saves"
    return advances, peak, reversed_steps


def test_advances_are_the_least_possible():
    for steps in range(1, 41):
        for slots in range(1, 9):
            assert binomial(0, steps, slots).advances == least_advances(steps, slots), (steps, slots)


@given(start=st.integers(0, 50), steps=st.integers(1, 120), slots=st.integers(1, 130))
@settings(max_examples=150, deadline=None)
def test_any_plan_keeps_its_promises(start: int, steps: int, slots: int):
    plan = binomial(start, start + steps, slots)
    advances, peak, order = simulate(plan)
    assert order == list(range(start + steps - 1, start - 1, -1))
    assert peak <= slots
    assert (advances, peak) == (plan.advances, plan.peak_states)


@pytest.mark.parametrize(("slots", "extra"), [(16, 8236), (32, 5656), (64, 4040), (128, 2996)])
def test_extra_advances_of_the_papers_run(slots: int, extra: int):
    """T = 3125: the first sweep makes 3124 untraced steps; what is beyond them is recomputation."""
    plan = binomial(0, 3125, slots)
    assert plan.advances - 3124 == extra
    assert simulate(plan)[:2] == (plan.advances, slots)


@pytest.mark.parametrize(("steps", "slots"), [(100, 10), (1000, 10), (1000, 45), (10_000, 20), (10_000, 141)])
def test_long_runs(steps: int, slots: int):
    plan = binomial(0, steps, slots)
    advances, peak, order = simulate(plan)
    assert advances == plan.advances and peak == slots and len(order) == steps


def test_keep_all_recomputes_nothing():
    plan = keep_all(7, 30)
    assert simulate(plan) == (22, 23, list(range(29, 6, -1)))
    assert plan.advances == 22 and plan.peak_states == 23


@pytest.mark.parametrize(
    ("start", "stop", "slots", "words"), [(5, 5, 1, "0 <= start < stop"), (-1, 5, 1, "-1"), (0, 5, 0, "at least one")]
)
def test_impossible_windows_are_refused(start: int, stop: int, slots: int, words: str):
    with pytest.raises(ValueError, match=words):
        binomial(start, stop, slots)
