"""A training over ranks is that of one process: to rounding in float64, and to the bit when it is run again."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mgd_core.engine.journal import Interval, durable
from mgd_core.engine.metaparameters import WeightDecays
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import Metagradient, replay
from mgd_core.plans.actions import Plan, Tier
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.segments import segments
from mgd_core.ranks.ranks import ALONE, Ranks
from mgd_core.training.learner import Batch
from mgd_core.training.optimizers import Adam, Sgd
from mgd_core.training.spread import spread
from testing import problems
from testing.oracles import Problem
from testing.rank_groups import on_ranks
from testing.samples import ADAM, small

EXACT = 1e-12
STEPS, START = 8, 2
KINKED = Adam(eps_root=1e-6, weight_decay=0.05, clip_norm=0.6)  # some steps are clipped, and some are not


class CutOff(Exception):
    """Stands for the end of a process."""


def clip(chunk: int | None = None, optimizer: Any = KINKED, rows: int | None = None) -> Problem:
    problem = small(problems.clip, optimizer, STEPS)

    def batches(t: int) -> Batch:
        some, ids, weights = problem.learner.batches(t)
        weights = weights.clone()
        weights[2] = 0  # a weight of zero still is a negative of others
        return Batch(tuple(x[:rows] for x in some), ids[:rows], weights[:rows])

    return dataclasses.replace(problem, learner=dataclasses.replace(problem.learner, batches=batches, chunk=chunk))


def towers(chunk: int | None = None) -> Problem:
    problem = small(problems.two_towers, Sgd(momentum=0.9, weight_decay=0.01), STEPS)
    return dataclasses.replace(problem, learner=dataclasses.replace(problem.learner, chunk=chunk))


def two_targets(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor]:
    phi, gradient = problem.phi_and_gradient(theta)
    return torch.stack([phi, theta.square().sum()]), torch.stack([gradient, 2 * theta])


def metagradient(ranks: Ranks, problem: Problem, plan: Plan, many: bool = False, **options: Any) -> Metagradient:
    learner, initial = spread(problem.learner, problem.initial, ranks)

    def target(theta: Tensor) -> tuple[Tensor, Tensor]:
        return two_targets(problem, theta) if many else problem.phi_and_gradient(theta)

    how = plan, problem.pool_size, () if many else (START, STEPS - 2)
    return replay(learner, initial, target, *how, metaparameters=[WeightDecays()], **options)


def figures(found: Metagradient, problem: Problem) -> dict[str, Tensor]:
    """All that a traversal finds, and the scores of a probe."""
    tensors = {"phi": found.phi, "visits": found.visits, **found.sums, "losses": torch.tensor(found.train_losses)}
    assert found.adjoint is not None
    for name, state in (("final", found.final), ("adjoint", found.adjoint)):
        tensors |= {f"{name}.{i}": x for i, x in enumerate(state.tensors)}
    for point in found.probes:
        ids = torch.arange(problem.pool_size)
        g = Probe(problem.learner, point).scores(problem.pool, ids)[1]
        tensors |= {f"gamma.{point.step}": point.gamma, f"g.{point.step}": g}
    return tensors


def exactly(ranks: Ranks, make: Any, plan: Plan, **options: Any) -> tuple[dict[str, Tensor], int, dict[Tier, int]]:
    problem = make()
    found = metagradient(ranks, problem, plan, **options)
    return figures(found, problem), found.state_bytes, found.peak_states


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest relative difference of any figure."""
    assert found.keys() == expected.keys()
    each = [(found[k].double() - x).norm() / x.double().norm().clamp(min=1e-30) for k, x in expected.items()]
    return max(x.item() for x in each)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def both(ranks: Ranks, folder: Path) -> Any:
    """Whole on two ranks, twice; the same over disk, cut off in either sweep by one rank's clock."""
    exact = [exactly(ranks, clip, keep_all(START, STEPS)), exactly(ranks, clip, keep_all(START, STEPS))]
    plan = segments(START, STEPS, 2, disk_states=3)
    for events in (5, 13, 10**6):
        seen = [0]

        def on(what: str, t: int, seen: list[int] = seen, events: int = events) -> None:
            seen[0] += 1
            if seen[0] == events:
                raise CutOff

        with durable(folder, "key", Interval(steps=2), ranks) as (store, journal):
            try:
                resumed = exactly(ranks, clip, plan, on=on, store=store, journal=journal)
            except CutOff:
                pass
    return exact, resumed, [path.name for path in sorted(folder.iterdir())]


def test_two_ranks_are_one_process(tmp_path: Path):
    """Batches of 7 do not divide; the first rank has 4 rows. Clipped at some steps, a learnt scale, a weight of 0."""
    results = on_ranks(2, both, tmp_path)
    expected = exactly(ALONE, clip, keep_all(START, STEPS))
    for (exact, again), resumed, folders in results:
        assert worst(exact[0], expected[0]) < EXACT
        assert same(exact[0], again[0]) and same(exact[0], resumed[0])
        assert exact[1] == pytest.approx(expected[1] / 2, rel=0.02)  # bytes of a state that is kept
        assert folders == ["rank-0-of-2", "rank-1-of-2"]
    assert same(results[0][0][0][0], results[1][0][0][0])
