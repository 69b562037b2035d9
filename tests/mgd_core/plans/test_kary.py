"""The k-ary tree: the tables of its costs, a naive tree, and bounds."""

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.plans.actions import Tier
from mgd_core.plans.kary import kary
from mgd_core.plans.plan import keep_all, least_advances
from testing.arities import best_arity
from testing.simulator import simulate


def naive(steps: int, arity: int) -> tuple[int, int]:
    """(advances, peak states) from the definition: sizes as even as can be, children reversed last to first."""
    if steps == 1:
        return 0, 1
    children = min(arity, steps)
    sizes = [ceil((steps - i) / children) for i in range(children)]
    costs = [naive(size, arity) for size in sizes]
    return steps - sizes[-1] + sum(c for c, _ in costs), max(i + peak for i, (_, peak) in enumerate(costs))


def levels(steps: int, arity: int) -> int:
    """Levels of the tree: the least D with arity^D >= steps."""
    found = 0
    while arity**found < steps:
        found += 1
    return found


@given(st.integers(0, 20), st.integers(1, 400), st.integers(2, 400))
@settings(max_examples=100, deadline=None)
def test_it_is_the_tree(start: int, steps: int, arity: int):
    plan = kary(start, start + steps, arity)
    done = simulate(plan)
    advances, peak = naive(steps, arity)
    assert done.advances == plan.advances == advances
    assert done.peak == plan.peak_states == {Tier.DEVICE: peak}
    assert done.transfers == plan.transfers == {}


@given(st.integers(1, 10**6), st.integers(2, 10**6))
@settings(max_examples=100, deadline=None)
def test_bounds(steps: int, arity: int):
    plan = kary(0, steps, arity)
    (peak,) = plan.peak_states.values()
    depth = levels(steps, arity)
    assert plan.advances <= depth * steps
    assert peak <= depth * (arity - 1) + 1
    assert plan.advances >= least_advances(steps, peak), "the binomial plan is the least for its states"
    assert kary(0, steps + 1, arity).peak_states[Tier.DEVICE] >= peak, "a part of a window needs no more"


@pytest.mark.parametrize(
    ("arity", "slots", "extra"), [(2, 12, 5.04), (4, 18, 3.43), (8, 27, 2.47), (16, 42, 1.79), (32, 65, 1.61)]
)
def test_extra_advances_of_the_papers_run(arity: int, slots: int, extra: float):
    plan = kary(0, 3125, arity)
    done = simulate(plan)
    assert done.peak == {Tier.DEVICE: slots}
    assert (done.advances - 3124) / 3125 == pytest.approx(extra, abs=0.006)


TREES_WITHIN = {  # slots: (extra over T, arity), by T
    100: {8: (2.57, 2), 16: (1.17, 8), 32: (0.68, 30), 64: (0.36, 64), 128: (0, 100)},
    1000: {16: (2.77, 4), 32: (1.65, 15), 64: (0.94, 40), 128: (0.87, None), 256: (0.74, None)},
    3125: {16: (4.10, 3), 32: (2.32, 11), 64: (1.63, 31), 128: (0.96, 97), 256: (0.92, None)},
    10_000: {16: (5.90, 2), 32: (3.12, 8), 64: (1.86, 25), 128: (1.56, 64), 256: (0.97, None)},
}


@pytest.mark.parametrize("steps", TREES_WITHIN)
def test_the_best_tree_within_slots(steps: int):
    for slots, (extra, arity) in TREES_WITHIN[steps].items():
        best = best_arity(steps, slots)
        plan = kary(0, steps, best)
        assert arity in (best, None)
        assert plan.peak_states[Tier.DEVICE] <= slots
        assert (plan.advances - (steps - 1)) / steps == pytest.approx(extra, abs=0.006)


@pytest.mark.parametrize(("steps", "slots", "least"), [(100, 4, 7), (1000, 8, 10), (3125, 8, 12), (10_000, 8, 14)])
def test_slots_too_few_for_any_tree(steps: int, slots: int, least: int):
    with pytest.raises(ValueError, match=f"fits in {slots} slots, the least is {least}: use binomial"):
        best_arity(steps, slots)
    assert kary(0, steps, best_arity(steps, least)).peak_states[Tier.DEVICE] == least


def test_as_many_children_as_steps_keep_all():
    assert [*kary(3, 20, 17)] == [*kary(3, 20, 99)]
    assert [*kary(3, 20, 17)] == [*keep_all(3, 20)]
    assert best_arity(1, 1) == 2


def test_a_hundred_thousand_steps():
    plan = kary(0, 100_000, 2)
    assert simulate(plan).advances == plan.advances


@pytest.mark.parametrize("arity", [1, 0, -3])
def test_no_tree_branches_less_than_twice(arity: int):
    with pytest.raises(ValueError, match=f"at least 2; got {arity}"):
        kary(0, 5, arity)
