"""The plan of two tiers: published figures, even stretches, each outer state moved once."""

from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.plans.actions import Free, Load, Save, Tier
from mgd_core.plans.plan import binomial, least_advances
from mgd_core.plans.segments import Segments, segments
from testing.simulator import simulate


@cache
def with_free_cuts(steps: int, states: int, slots: int) -> int:
    """Least advances of any cuts at all."""
    if states == 1:
        return least_advances(steps, slots)
    firsts = range(1, steps)
    cut = (a + least_advances(a, slots) + with_free_cuts(steps - a, states - 1, slots) for a in firsts)
    return min(with_free_cuts(steps, states - 1, slots), min(cut, default=steps**2))


def cuts(plan) -> list[int]:
    return [action.step for action in plan if isinstance(action, Save) and action.tier is plan.outer]


@pytest.mark.parametrize(("slots", "states", "extra"), [(8, 56, 2.00), (16, 112, 1.35), (16, 256, 0.91)])
def test_extra_advances_of_the_papers_run(slots: int, states: int, extra: float):
    plan = segments(0, 3125, slots, disk_states=states)
    done = simulate(plan)
    assert (done.advances - 3124) / 3125 == pytest.approx(extra, abs=0.006)
    assert done.peak == plan.peak_states == {Tier.DEVICE: min(slots, plan.period), Tier.DISK: states}
    assert done.transfers == plan.transfers == {Tier.DISK: (states, states - 1)}


@given(st.integers(0, 20), st.integers(1, 300), st.integers(1, 30), st.integers(1, 320), st.sampled_from(Tier))
@settings(max_examples=100, deadline=None)
def test_stretches_are_even_and_states_move_once(start: int, steps: int, slots: int, period: int, tier: Tier):
    if tier is Tier.DEVICE:
        return
    plan = segments(start, start + steps, slots, period=period, tier=tier)
    found = cuts(plan)
    lengths = [b - a for a, b in pairwise([*found, plan.stop])]
    assert found[0] == start and max(lengths) <= period and max(lengths) - min(lengths) <= 1
    assert lengths[-1] == max(lengths) == plan.period
    assert all(
        plan.next_cut(step) == next((c for c in found if c > step), plan.stop) for step in range(start, plan.stop)
    )
    moved = Counter(action for action in plan if isinstance(action, Save | Load | Free) and action.tier is tier)
    once = {Save(step, tier) for step in found} | {Free(step, tier) for step in found}
    assert moved == Counter(once | {Load(step, tier) for step in found[:-1]})


def test_even_cuts_are_near_the_best_ones():
    """Each step moved to the last stretch would save one advance, within a plateau of the binomial plan."""
    for slots in (1, 2, 3):
        for steps in range(1, 31):
            for states in range(1, min(steps, 7) + 1):
                plan = segments(0, steps, slots, disk_states=states)
                best = with_free_cuts(steps, states, slots)
                assert best <= plan.advances <= best + 0.34 * steps
                assert slots > 1 or plan.advances == best


def test_one_stretch_is_the_binomial_plan_with_its_first_state_on_disk():
    plan = segments(4, 40, 5, disk_states=1)
    assert [*plan] == [Save(4, Tier.DISK), *binomial(4, 40, 5), Free(4, Tier.DISK)]
    assert plan.advances == binomial(4, 40, 5).advances


def test_period_and_number_say_the_same():
    assert segments(0, 100, 3, period=10) == segments(0, 100, 3, disk_states=10)
    assert segments(0, 7, 3, disk_states=99) == segments(0, 7, 3, period=1), "no more states than steps"
    assert segments(0, 7, 3, period=1).advances == 6, "every state on disk: nothing is recomputed"


def test_a_hundred_thousand_steps():
    plan = segments(0, 100_000, 10, period=3, tier=Tier.HOST)
    done = simulate(plan)
    assert (done.advances, done.peak, done.transfers) == (plan.advances, plan.peak_states, plan.transfers)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "one of them; got disk_states=None, period=None"),
        ({"disk_states": 3, "period": 3}, "disk_states=3, period=3"),
        ({"disk_states": 0}, "disk_states of at least 1; got 0"),
        ({"period": -1}, "period of at least 1; got -1"),
        ({"period": 3, "tier": Tier.DEVICE}, "Tier.HOST or Tier.DISK"),
        ({"period": 3, "slots": 0}, "at least one slot .*got 0"),
        ({"period": 3, "stop": 0}, r"window \[0, 0\)"),
    ],
)
def test_impossible_plans_are_refused(arguments, words: str):
    with pytest.raises(ValueError, match=words):
        segments(**{"start": 0, "stop": 9, "slots": 2} | arguments)


def test_more_stretches_than_steps_are_refused():
    with pytest.raises(ValueError, match="9 steps cannot be cut into 10"):
        Segments("segments", 0, 9, 2, 10)
