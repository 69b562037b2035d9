"""What every plan promises, whatever its kind: legal actions, predicted counts, and a way on from any interruption."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.plans.actions import Advance, Free, Load, Plan, Reverse, Save, Tier, Turn
from mgd_core.plans.kary import kary
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.segments import segments
from testing.simulator import IllegalActionError, Simulation, simulate

SLOW = st.sampled_from([Tier.HOST, Tier.DISK])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A plan of any kind over any window of up to 120 steps."""
    start, steps = draw(st.integers(0, 50)), draw(st.integers(1, 120))
    stop, slots, other = start + steps, draw(st.integers(1, 20)), draw(st.integers(1, 130))
    kinds = {
        "keep_all": lambda: keep_all(start, stop),
        "binomial": lambda: binomial(start, stop, other),
        "kary": lambda: kary(start, stop, other + 1),
        "states": lambda: segments(start, stop, slots, disk_states=other, tier=draw(SLOW)),
        "period": lambda: segments(start, stop, slots, period=other, tier=draw(SLOW)),
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


def cuts(plan: Plan) -> list[int]:
    """Steps whose states the plan keeps on its slow tier."""
    return [action.step for action in plan if isinstance(action, Save) and action.tier is not Tier.DEVICE]


def fits(done: Simulation, plan: Plan, kept: set[int]) -> bool:
    """No tier above its predicted peak; kept states that are none of the plan's come on top on disk."""
    own = plan.peak_states
    disk = max(own.get(Tier.DISK, 0), len(kept))
    foreign = len(kept - set(cuts(plan))) if Tier.DISK in own else 0
    return all(
        count <= (disk + foreign if tier is Tier.DISK else own.get(tier, 0)) for tier, count in done.peak.items()
    )


@given(plans())
@settings(max_examples=200, deadline=None)
def test_whole_traversal_is_legal_and_costs_what_was_predicted(plan: Plan):
    done = simulate(plan)  # in reverse order, every step once, nothing left: the simulator refuses anything else
    assert done.reversals == plan.steps and not done.sweeping
    assert (done.advances, done.peak, done.transfers) == (plan.advances, plan.peak_states, plan.transfers)
    assert next(iter(plan)) == Save(plan.start, plan.outer)
    assert list(plan) == list(plan), "a plan can be iterated again"


@given(plans(), st.data())
@settings(max_examples=200, deadline=None)
def test_reverse_sweep_goes_on_from_any_position_and_any_states(plan: Plan, data: st.DataObject):
    position = data.draw(st.integers(plan.start, plan.stop))
    kept = {plan.start} | data.draw(st.sets(st.integers(plan.start, plan.stop - 1), max_size=10))
    done = Simulation.resumed(plan, kept, position).run(plan.resumed(position, kept))
    assert done.reversals == position - plan.start
    assert fits(done, plan, kept)


@given(plans(), st.data())
@settings(max_examples=200, deadline=None)
def test_first_sweep_goes_on_from_any_step_and_any_states(plan: Plan, data: st.DataObject):
    at = data.draw(st.integers(plan.start, plan.stop - 1))
    kept = {plan.start} | data.draw(st.sets(st.integers(plan.start, plan.stop - 1), max_size=10))
    done = Simulation.forward_resumed(plan, kept, at).run(plan.forward_resumed(at, kept))
    assert done.reversals == plan.steps and not done.sweeping
    assert fits(done, plan, kept)


@given(plans(), st.data())
@settings(max_examples=200, deadline=None)
def test_killed_after_any_action_it_goes_on_from_what_the_disk_keeps(plan: Plan, data: st.DataObject):
    actions = list(plan)
    before = Simulation.of(plan)
    for action in actions[: data.draw(st.integers(0, len(actions)))]:
        before.do(action)
    kept = before.kept[Tier.DISK] | {plan.start}  # a run that may be resumed has its first state on disk
    if before.sweeping:
        at = before.working
        assert at is not None
        after = Simulation.forward_resumed(plan, kept, at).run(plan.forward_resumed(at, kept))
    else:
        after = Simulation.resumed(plan, kept, before.position).run(plan.resumed(before.position, kept))
    assert before.reversals + after.reversals == plan.steps
    assert after.advances <= plan.advances, "what remains costs no more than the whole"
    assert fits(after, plan, kept)


@given(st.integers(0, 30), st.integers(2, 120), st.integers(1, 20), st.integers(2, 120), st.data())
@settings(max_examples=100, deadline=None)
def test_resumed_at_a_cut_it_is_the_plan_itself(start: int, steps: int, slots: int, states: int, data: st.DataObject):
    plan = segments(start, start + steps, slots, disk_states=states)
    actions, all_cuts = list(plan), cuts(plan)
    i = data.draw(st.integers(1, len(all_cuts) - 1))
    cut, before = all_cuts[i], all_cuts[:i]
    assert list(plan.forward_resumed(cut, before)) == actions[actions.index(Save(cut, Tier.DISK)) :]
    assert list(plan.resumed(cut, before)) == actions[actions.index(Load(before[-1], Tier.DISK)) :]


def test_memory_plan_resumes_each_stretch_between_states_on_disk():
    plan = binomial(0, 10, 2)
    found = list(plan.resumed(6, [0, 4, 8]))
    assert found[0] == Free(8, Tier.DISK), "a state beyond the position is of no use"
    inner = [Load(4, Tier.DISK), *binomial(4, 6, 2), Free(4, Tier.DISK), Load(0, Tier.DISK), *binomial(0, 4, 2)]
    assert found[1:] == [action for action in inner if not isinstance(action, Turn)] + [Free(0, Tier.DISK)]


def test_lost_states_of_the_host_are_made_again():
    plan = segments(0, 12, 2, disk_states=3, tier=Tier.HOST)
    found = list(plan.resumed(12, [0]))
    assert found[:5] == [Load(0, Tier.DISK), Advance(0, 4), Save(4, Tier.HOST), Advance(4, 8), Save(8, Tier.HOST)]
    assert found.count(Load(0, Tier.DISK)) == 2 and found[-1] == Free(0, Tier.DISK)


def test_nothing_remains_but_to_free():
    assert list(segments(3, 9, 2, period=2).resumed(3, [3, 5])) == [Free(5, Tier.DISK), Free(3, Tier.DISK)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda plan: plan.resumed(4, [5]), r"up to 4 cannot remain in the window \[5, 20\)"),
        (lambda plan: plan.resumed(21, [5]), "up to 21"),
        (lambda plan: plan.resumed(8, [6, 7]), r"must keep the state of step 5 .*those of \[6, 7\]"),
        (lambda plan: plan.resumed(8, [2, 5]), r"none before it; it keeps those of \[2, 5\]"),
        (lambda plan: plan.forward_resumed(20, [5]), r"step 20: it lies outside the window \[5, 20\)"),
        (lambda plan: plan.forward_resumed(4, [5]), "step 4"),
        (lambda plan: plan.forward_resumed(9, []), r"keeps those of \[\]"),
    ],
)
def test_impossible_resumptions_are_refused_at_once(call, words: str):
    plan = segments(5, 20, 2, period=4)
    with pytest.raises(ValueError, match=words):
        call(plan)  # not iterated


@pytest.mark.parametrize(
    "actions",
    [
        [Load(0)],
        [Save(1)],
        [Save(0), Save(0)],
        [Save(0), Load(0, Tier.DISK)],
        [Reverse(0)],
        [Advance(0, 3)],
        [Advance(0, 2), Reverse(2)],
        [Turn(0)],
        [Save(0), Advance(0, 2), Turn(2), Reverse(2), Load(0), Reverse(0)],
        [Free(0)],
        [Save(0)],
        [Save(0), Advance(0, 2), Turn(2), Turn(2)],
    ],
)
def test_simulator_refuses(actions):
    with pytest.raises(IllegalActionError):
        Simulation.of(keep_all(0, 3)).run(actions)


def test_all_kinds_are_drawn_from_one_window_with_the_same_reversals():
    kinds = [keep_all(2, 30), binomial(2, 30, 4), kary(2, 30, 3), segments(2, 30, 3, period=5)]
    orders = [[action for action in plan if isinstance(action, Turn | Reverse)] for plan in kinds]
    assert all(a == b for a, b in itertools.pairwise(orders))
