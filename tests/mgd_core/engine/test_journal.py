"""A traversal cut off anywhere goes on and ends with the same bits, whatever the plan and the tier."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgd_core.engine.guard import NondeterminismError
from mgd_core.engine.journal import Interval, Journal, durable
from mgd_core.engine.replay import Metagradient, replay, train
from mgd_core.engine.state_files import CorruptState, ForeignState, NoRoom
from mgd_core.engine.store import Store
from mgd_core.engine.training import Progress
from mgd_core.plans.actions import Plan, Tier
from mgd_core.plans.kary import kary
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.segments import segments
from mgd_core.training.learner import Batch
from mgd_core.training.optimizers import Adam
from testing import problems
from testing.oracles import Problem
from testing.samples import CLIPPED, SGD, first_rows_target, in_float32, small

STEPS, START = 12, 3
PLANS: list[Plan] = [
    keep_all(START, STEPS),
    binomial(START, STEPS, 2),
    kary(START, STEPS, 2),
    segments(START, STEPS, 2, disk_states=3),
    segments(START, STEPS, 2, disk_states=9),
    segments(START, STEPS, 2, disk_states=3, tier=Tier.HOST),
]
PROBES = [START, 8, 11]
Event = tuple[str, int]


class CutOff(Exception):
    """Stands for the end of the process."""


def single(optimizer=None) -> Problem:
    return in_float32(small(problems.classifier, optimizer or Adam(eps_root=1e-6)))


def run(
    problem: Problem, plan: Plan, on: Progress | None = None, store: Store | None = None, **options
) -> Metagradient:
    target = first_rows_target(problem)
    arguments = problem.learner, problem.initial, target, plan, problem.pool_size, PROBES
    return replay(*arguments, on=on, store=store, **options)


def cut_off_after(events: int, seen: list[Event]) -> Progress:
    def on(what: str, t: int) -> None:
        seen.append((what, t))
        if len(seen) == events:
            raise CutOff

    return on


def run_in_parts(
    problem: Problem, plan: Plan, directory: Path, parts: list[int], steps: int = 1
) -> tuple[Metagradient, list[list[Event]]]:
    """Processes that end after so many events each, and a last one that ends by itself."""
    history: list[list[Event]] = []
    for events in [*parts, 10**6]:
        history.append([])
        with durable(directory, "key", Interval(steps=steps)) as (store, journal):
            try:
                found = run(problem, plan, cut_off_after(events, history[-1]), store, journal=journal)
            except CutOff:
                continue
        return found, history
    raise AssertionError


def tensors(found: Metagradient) -> list[Tensor]:
    assert found.adjoint is not None
    probes = [x for point in found.probes for x in (torch.tensor(point.step), point.theta, point.gamma)]
    sums = [found.phi, found.example, found.learning_rate, found.visits, torch.tensor(found.train_losses)]
    return [*sums, *found.final.tensors, *found.adjoint.tensors, *probes]


def assert_same(found: Metagradient, expected: Metagradient) -> None:
    assert all(torch.equal(a, b) for a, b in zip(tensors(found), tensors(expected), strict=True))
    assert (found.reverse_steps, found.state_bytes) == (expected.reverse_steps, expected.state_bytes)


@pytest.fixture(scope="module")
def expected() -> Metagradient:
    return run(single(), PLANS[0])


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.name}-{plan.outer}")
def test_every_plan_and_tier_gives_the_bits_of_keep_all(plan: Plan, expected: Metagradient, tmp_path: Path):
    """Within predicted advances and states, which the executor asserts."""
    found, _ = run_in_parts(single(), plan, tmp_path / "recorded", [])
    assert_same(found, expected)
    assert found.advances == plan.advances and found.peak_states == plan.peak_states
    with durable(tmp_path / "plain", "key", Interval(steps=1)) as (store, _):
        assert_same(run(single(), plan, store=store), expected)
        assert not store.kept(Tier.DISK)


@pytest.mark.parametrize("optimizer", [CLIPPED, SGD], ids=["clipped", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_other_optimizers_and_precisions(optimizer, precision: str, tmp_path: Path):
    problem = single(optimizer) if precision == "float32" else small(problems.classifier, optimizer)
    plan, expected = segments(START, STEPS, 2, disk_states=3), run(problem, keep_all(START, STEPS))
    for part in (7, 19):
        assert_same(run_in_parts(problem, plan, tmp_path / str(part), [part])[0], expected)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.name}-{plan.outer}")
def test_cut_off_anywhere_it_ends_with_the_same_bits(plan: Plan, expected: Metagradient, tmp_path: Path):
    """At every second event of one plan, at a few of the others; benchmarks.kill does it at any instant."""
    problem = single()
    length = len(run_in_parts(problem, plan, tmp_path / "whole", [])[1][0])
    for part in range(2, length + 1, 2 if plan is PLANS[3] else 9):
        steps = 1 + part // 2 % 3
        found, (first, second) = run_in_parts(problem, plan, tmp_path / str(part), [part], steps)
        assert_same(found, expected)
        assert lost(first, second) <= steps, (part, first, second)


def lost(first: list[Event], second: list[Event]) -> int:
    """Steps of the first sweep, or of the reverse one, that the second process did anew."""
    reversed_twice = {t for what, t in first if what == "reverse"} & {t for what, t in second if what == "reverse"}
    if any(what == "reverse" for what, _ in first):
        return len(reversed_twice)
    return first[-1][1] + 1 - second[0][1]


def test_nothing_recorded_is_done_again(expected: Metagradient, tmp_path: Path):
    """With a record after every step, no more than the step that was cut off in its report is done twice."""
    plan = segments(START, STEPS, 2, disk_states=3)
    found, history = run_in_parts(single(), plan, tmp_path, [4, 6, 4, 3, 5])
    assert_same(found, expected)
    reverse = [t for events in history for what, t in events if what == "reverse"]
    assert sorted(set(reverse)) == list(range(START, STEPS)) and len(reverse) <= STEPS - START + 3
    assert [events[0] for events in history[:3]] == [("step", 0), ("step", 3), ("step", 8)]


def test_the_prefix_is_recorded_too(tmp_path: Path):
    problem = single()
    late = keep_all(10, STEPS)
    options = {"probe_steps": [10]}
    whole = replay(problem.learner, problem.initial, first_rows_target(problem), late, problem.pool_size, **options)
    seen: list[list[Event]] = [[], []]
    for events, history in zip((7, 100), seen, strict=True):
        with durable(tmp_path, "key", Interval(steps=2)) as (store, journal):
            options |= {"on": cut_off_after(events, history), "store": store, "journal": journal}
            arguments = problem.learner, problem.initial, first_rows_target(problem), late, problem.pool_size
            if events == 7:
                with pytest.raises(CutOff):
                    replay(*arguments, **options)
            else:
                assert_same(replay(*arguments, **options), whole)
    assert seen[1][0] == ("step", 6), "the step that was cut off in its report is the only one done again"


def test_a_plain_training_goes_on(tmp_path: Path):
    problem = single()
    final, losses = train(problem.learner, problem.initial)
    for events in (5, 100):
        with durable(tmp_path, "key", Interval(steps=1)) as (_, journal):
            seen: list[Event] = []
            on = cut_off_after(events, seen)
            if events == 5:
                with pytest.raises(CutOff):
                    train(problem.learner, problem.initial, on=on, journal=journal)
            else:
                state, found = train(problem.learner, problem.initial, on=on, journal=journal)
    assert seen[0] == ("step", 4) and found == losses and torch.equal(state.theta, final.theta)


def part_way(directory: Path, plan: Plan, events: int) -> None:
    with pytest.raises(CutOff), durable(directory, "key", Interval(steps=1)) as (store, journal):
        run(single(), plan, cut_off_after(events, []), store, journal=journal)


@pytest.mark.parametrize("events", [9, 18])
def test_damage_to_any_file_is_told_and_its_removal_is_made_good(events: int, expected: Metagradient, tmp_path: Path):
    plan = segments(START, STEPS, 2, disk_states=3)
    part_way(tmp_path / "first", plan, events)
    names = [path.name for path in sorted((tmp_path / "first").glob("*.safetensors"))]
    assert len(names) >= 3
    for name in names:
        directory = tmp_path / name
        part_way(directory, plan, events)
        data = bytearray((directory / name).read_bytes())
        data[-3] ^= 1
        (directory / name).write_bytes(data)
        try:
            found, _ = run_in_parts(single(), plan, directory, [])
        except CorruptState as error:
            assert name in str(error) and "Remove it and give the same command again" in str(error)
            (directory / name).unlink()
            found, _ = run_in_parts(single(), plan, directory, [])
        assert_same(found, expected)


def test_files_of_another_run_are_refused(tmp_path: Path):
    part_way(tmp_path, PLANS[1], 8)
    with (
        pytest.raises(ForeignState, match="belongs to key, this run is other"),
        durable(tmp_path, "other", Interval(steps=1)),
    ):
        pass


def test_a_change_between_two_processes_is_caught(tmp_path: Path):
    """A replay by the second process is compared with the first one's fingerprints."""
    plan = segments(START, STEPS, 2, disk_states=3)
    part_way(tmp_path, plan, 12)
    problem = single()
    plain = problem.learner.batches

    def batches(t: int) -> Batch:
        batch = plain(t)
        return batch._replace(weights=batch.weights * 1.0001)

    changed = dataclasses.replace(problem, learner=dataclasses.replace(problem.learner, batches=batches))
    with pytest.raises(NondeterminismError, match="ends as the second time: something changed since the first sweep"):
        run_in_parts(changed, plan, tmp_path, [])


def test_a_disk_that_is_too_small_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with (
        pytest.raises(NoRoom, match=r"the states of plan 'segments' need [\d,]+ bytes"),
        durable(tmp_path, "key", Interval(steps=1)) as (store, journal),
    ):
        run(single(), PLANS[3], cut_off_after(1, []), store, journal=journal)


def test_a_plan_on_disk_needs_a_disk():
    with pytest.raises(ValueError, match=r"plan 'segments' keeps states on disk.*journal\.durable"):
        run(single(), PLANS[3])


@pytest.mark.parametrize("options", [{}, {"steps": 0}, {"seconds": -1.0}, {"steps": 3, "seconds": 0.0}])
def test_an_interval_is_positive(options: dict[str, float]):
    with pytest.raises(ValueError, match="positive number of steps or seconds"):
        Interval(**options)  # type: ignore[arg-type]


def test_a_long_interval_writes_nothing(tmp_path: Path):
    for interval in (Interval(steps=1000), Interval(seconds=1000.0)):
        with durable(tmp_path, "key", interval) as (store, journal):
            assert isinstance(journal, Journal)
            run(single(), PLANS[1], store=store, journal=journal)
        assert not list(tmp_path.glob("*.safetensors"))
