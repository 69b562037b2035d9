"""The plans in memory: against the shortest of all legal traversals, dynamic programming, and a library's schedules."""

from functools import cache
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.plans.actions import Load, Save, Tier
from mgd_core.plans.plan import binomial, keep_all, least_advances, repetitions
from testing.simulator import simulate


@cache
def by_recursion(steps: int, slots: int) -> int:
    """Griewank & Walther's recursion, with the first state in one of the slots."""
    if steps == 1:
        return 0
    if slots == 1:
        return steps * (steps - 1) // 2
    splits = range(1, steps)
    return min(m + by_recursion(steps - m, slots - 1) + by_recursion(m, slots) for m in splits)


def by_search(steps: int, slots: int) -> int:
    """Least advances of any sequence of legal actions at all: Dijkstra over (kept states, working state, position)."""
    queue = [(0, steps, 0, frozenset({0}))]  # advances, position, working, kept
    seen = set()
    while queue:
        advances, position, working, kept = heappop(queue)
        if position == 0:
            return advances
        if (position, working, kept) in seen:
            continue
        seen.add((position, working, kept))
        if working == position - 1:
            heappush(queue, (advances, position - 1, working, kept))
        if working < position - 1:
            heappush(queue, (advances + 1, position, working + 1, kept))
        if len(kept) < slots:
            heappush(queue, (advances, position, working, kept | {working}))
        for step in kept:
            heappush(queue, (advances, position, step, kept))
            heappush(queue, (advances, position, working, kept - {step}))
    raise AssertionError("the first state can be kept, so there is a way")


def test_no_legal_traversal_advances_less():
    for steps in range(1, 8):
        for slots in range(1, steps + 2):
            assert least_advances(steps, slots) == by_search(steps, slots), (steps, slots)


def test_closed_form_is_the_recursion():
    for steps in range(1, 41):
        for slots in range(1, 9):
            assert least_advances(steps, slots) == by_recursion(steps, slots), (steps, slots)


@pytest.mark.parametrize(("steps", "slots"), [(1, 1), (2, 2), (17, 3), (100, 8), (317, 10), (1000, 32), (3125, 16)])
def test_a_library_needs_as_many(steps: int, slots: int):
    library = pytest.importorskip("checkpoint_schedules")
    schedule = library.MultistageCheckpointSchedule(steps, slots, 0)
    forward = sum(action.n1 - action.n0 for action in schedule if isinstance(action, library.Forward))
    assert forward - steps == least_advances(steps, slots), "all steps forward but those taped, one for each reversal"


@given(steps=st.integers(1, 3000), slots=st.integers(1, 3000))
@settings(max_examples=50, deadline=None)
def test_it_runs_as_predicted(steps: int, slots: int):
    plan = binomial(0, steps, slots)
    done = simulate(plan)
    assert done.advances == plan.advances == least_advances(steps, slots)
    assert done.peak == plan.peak_states == {Tier.DEVICE: min(slots, steps)}
    assert done.transfers == plan.transfers == {}


@given(steps=st.integers(1, 10**6), slots=st.integers(1, 10**6))
@settings(max_examples=100, deadline=None)
def test_a_slot_more_is_never_dearer_and_no_step_runs_too_often(steps: int, slots: int):
    found = least_advances(steps, slots)
    assert least_advances(steps, slots + 1) <= found
    assert found <= repetitions(steps, min(slots, steps))[0] * steps


@pytest.mark.parametrize(("slots", "extra"), [(16, 8236), (32, 5656), (64, 4040), (128, 2996)])
def test_extra_advances_of_the_papers_run(slots: int, extra: int):
    """T = 3125: the first sweep makes 3124 untraced steps; what is beyond them is recomputation."""
    plan = binomial(0, 3125, slots)
    done = simulate(plan)
    assert (done.advances - 3124, done.peak) == (extra, {Tier.DEVICE: slots})
    assert plan.advances - 3124 == extra


@pytest.mark.parametrize(
    ("steps", "slots", "extra"),
    [
        (100, 4, 275),
        (100, 128, 0),
        (1000, 8, 3286),
        (1000, 256, 743),
        (3125, 4, 32123),
        (3125, 256, 2868),
        (10_000, 4, 147_497),
        (10_000, 16, 34_016),
        (10_000, 128, 11_486),
    ],
)
def test_extra_advances_as_tabulated(steps: int, slots: int, extra: int):
    assert least_advances(steps, slots) - (steps - 1) == extra


@pytest.mark.parametrize("plan", [binomial(0, 100_000, 12), keep_all(0, 100_000)], ids=["12", "all"])
def test_a_hundred_thousand_steps(plan):
    done = simulate(plan)
    assert (done.advances, done.peak) == (plan.advances, plan.peak_states)


def test_keep_all_recomputes_nothing():
    plan = keep_all(7, 30)
    assert (plan.advances, plan.peak_states, plan.name) == (22, {Tier.DEVICE: 23}, "keep_all")
    assert simulate(plan).advances == 22


def test_one_slot_starts_over_for_each_step():
    actions = list(binomial(4, 8, 1))
    assert [action for action in actions if isinstance(action, Save)] == [Save(4)]
    assert actions.count(Load(4)) == 3


@pytest.mark.parametrize(
    ("start", "stop", "slots", "words"),
    [
        (5, 5, 1, r"0 <= start < stop; got the window \[5, 5\)"),
        (-1, 5, 1, "-1"),
        (0, 5, 0, "at least one slot .*got 0"),
    ],
)
def test_impossible_windows_are_refused(start: int, stop: int, slots: int, words: str):
    with pytest.raises(ValueError, match=words):
        binomial(start, stop, slots)


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (6, 5), (-2, 3)])
def test_keep_all_refuses_them_too(start: int, stop: int):
    with pytest.raises(ValueError, match="0 <= start < stop"):
        keep_all(start, stop)
