"""The guard lets exact replays through and says of others which step, which parameter, and how far apart."""

from collections.abc import Iterator

import pytest
import torch

from mgd_core.engine.guard import Guard, NondeterminismError, check_step, difference
from mgd_core.engine.replay import replay
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.training.learner import Batch
from mgd_core.training.optimizers import State
from testing.oracles import with_learner
from testing.samples import first_rows_target, small

PROBLEM = small()
LAYOUT = PROBLEM.learner.layout


def states(n: int) -> list[State]:
    found = [PROBLEM.initial]
    for t in range(n):
        found.append(PROBLEM.learner.step(found[-1], t)[0])
    return found


def nudged(state: State, name: str, by: float) -> State:
    theta = state.theta.clone()
    theta[LAYOUT.offsets[LAYOUT.names.index(name)]] += by
    return State(theta, state.moments)


def nothing() -> Iterator[tuple[int, State]]:
    raise AssertionError("an exact replay is not done again")
    yield


def test_exact_replays_and_unknown_steps_pass():
    guard, found = Guard(LAYOUT), states(2)
    guard.note(1, found[1])
    guard.check(1, State(*found[1]), nothing)
    guard.check(2, found[2], nothing)


def test_a_replay_that_strayed_names_the_parameter_and_the_size():
    guard, found = Guard(LAYOUT), states(3)
    for step in (1, 2, 3):
        guard.note(step, found[step])
    strayed = nudged(found[3], LAYOUT.names[2], 0.25)
    expected = rf"before step 3 .* differs .* parameters: a third.*gave the first.*0.25, in '{LAYOUT.names[2]}' \(1 of"
    with pytest.raises(NondeterminismError, match=expected):
        guard.check(3, strayed, lambda: iter([(2, found[2]), (3, found[3])]))


def test_a_change_since_the_first_sweep_names_its_step():
    guard, found = Guard(LAYOUT), states(3)
    for step in (1, 2, 3):
        guard.note(step, found[step])
    other, end = nudged(found[2], LAYOUT.names[0], 1e-3), nudged(found[3], LAYOUT.names[0], 1e-3)
    with pytest.raises(NondeterminismError, match=r"before step 2, and ends as the second time.*Likely .*threads"):
        guard.check(3, end, lambda: iter([(1, found[1]), (2, other), (3, end)]))
    third = nudged(end, LAYOUT.names[0], 0.5)
    with pytest.raises(NondeterminismError, match=rf"differs from the second time too: .*0.5, in '{LAYOUT.names[0]}'"):
        guard.check(3, end, lambda: iter([(1, found[1]), (2, other), (3, third)]))


def test_fingerprints_survive_as_tensors():
    first, second, found = Guard(LAYOUT), Guard(LAYOUT), states(3)
    for step in (0, 1, 3):
        first.note(step, found[step])
    second.restore(first.as_tensors())
    assert second._first == first._first
    Guard(LAYOUT).restore(Guard(LAYOUT).as_tensors())


def test_difference_speaks_of_moments_and_of_signs():
    found = states(2)[2]
    moved = State(found.theta, (found.moments[0] + 1.0, found.moments[1]))
    assert difference(found, moved, LAYOUT.name_at).startswith("moment 1 by up to 1, in")
    zero = State(torch.zeros(LAYOUT.length), ())
    assert difference(zero, State(-zero.theta, ()), LAYOUT.name_at) == "in signs of zero alone"


def flickering(step: int):
    """A learner whose batch of ``step`` is another every time it is asked for."""
    plain, asked = PROBLEM.learner.batches, [0]

    def batches(t: int) -> Batch:
        batch = plain(t)
        asked[0] += t == step
        return batch._replace(weights=batch.weights * (1 + 1e-9 * asked[0])) if t == step else batch

    return with_learner(PROBLEM, batches=batches)


def test_the_self_check_compares_a_step_with_itself():
    check_step(PROBLEM.learner, PROBLEM.initial, 0)
    with pytest.raises(NondeterminismError, match=r"step 3, run twice from the same state.*by up to .*, in '.*Likely"):
        check_step(flickering(3).learner, states(3)[3], 3)


@pytest.mark.parametrize("steps", [2, 12])
def test_a_run_of_any_length_checks_itself_first(steps: int):
    short = small(steps=steps)
    asked: list[int] = []
    plain = short.learner.batches
    learner = with_learner(short, batches=lambda t: asked.append(t) or plain(t)).learner
    replay(learner, short.initial, first_rows_target(short), keep_all(steps - 2, steps), short.pool_size)
    assert asked[:4] == [0, 0, 0, 1]


def test_a_short_run_whose_steps_do_not_repeat_is_stopped_before_it_trains():
    problem, trained = flickering(0), []
    with pytest.raises(NondeterminismError, match="step 0, run twice from the same state"):
        replay(
            problem.learner,
            problem.initial,
            first_rows_target(problem),
            keep_all(0, 12),
            problem.pool_size,
            on=lambda what, t: trained.append(t),
        )
    assert not trained


def test_a_traversal_that_differs_every_time_is_stopped():
    problem = flickering(4)
    with pytest.raises(NondeterminismError, match=r"before step \d+ was recomputed.*before step 5, and differs"):
        replay(problem.learner, problem.initial, first_rows_target(problem), binomial(0, 12, 2), problem.pool_size)
