"""Trainings that are run over ranks and by one process, and how they are compared; what tests and the benchmark share.

All is known by name, since ranks are other processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Features, PerExample, Rows
from mgd_core.engine.journal import Interval, durable
from mgd_core.engine.metagradient import Metagradient
from mgd_core.engine.metaparameters import WeightDecays
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import replay
from mgd_core.plans.actions import Plan
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.segments import Segments, segments
from mgd_core.ranks.ranks import Ranks
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam, Bounds, Sgd
from mgd_core.training.schedules import constant
from mgd_core.training.spread import spread
from testing import problems
from testing.oracles import Problem

STEPS, START = 8, 2
KINKED = Adam(eps_root=1e-6, weight_decay=0.05, clip_norm=0.6)  # some steps are clipped, and some are not
SGD = Sgd(momentum=0.9, weight_decay=0.01)
BOUNDED = dataclasses.replace(SGD, bounds=Bounds(torch.arange(0, 100, 7), -0.1, 0.1))  # some steps reach them


class Case(NamedTuple):
    """A training: ``rows`` of each batch of 7 at most, encoded ``chunk`` at once, for so many ``targets``."""

    build: Callable[..., Problem]
    optimizer: Any
    plan: Plan
    chunk: int | None = None
    rows: int | None = None
    targets: int = 1


CASES = {
    "CLIP, clipped on the kink": Case(problems.clip, KINKED, keep_all(START, STEPS)),
    "CLIP, binomial, chunks of 2": Case(problems.clip, KINKED, binomial(START, STEPS, 2), chunk=2),
    "two towers, segments, SGD": Case(problems.two_towers, BOUNDED, segments(START, STEPS, 2, disk_states=3)),
    "two towers, two targets": Case(problems.two_towers, KINKED, binomial(START, STEPS, 3), targets=2),
    "two towers, batches of 2": Case(problems.two_towers, KINKED, keep_all(START, STEPS), rows=2),
    "LoRA on GPT-NeoX": Case(problems.tuned, KINKED, keep_all(START, STEPS)),
    "classifier": Case(problems.classifier, SGD, binomial(START, STEPS, 2), chunk=3),
}


class Found(NamedTuple):
    """What a traversal finds, by name, and the scores of a probe; bytes of a state that is kept."""

    figures: dict[str, Tensor]
    state_bytes: int


def problem_of(case: Case) -> Problem:
    """The case's problem; a row of every batch has a weight of zero, and is a negative of others still."""
    problem = case.build(case.optimizer, steps=STEPS)

    def batches(t: int) -> Batch:
        some, ids, weights = problem.learner.batches(t)
        weights = weights.clone()
        weights[1] = 0
        return Batch(tuple(x[: case.rows] for x in some), ids[: case.rows], weights[: case.rows])

    learner = dataclasses.replace(problem.learner, batches=batches, chunk=case.chunk)
    return dataclasses.replace(problem, learner=learner)


def found(ranks: Ranks, name: str, **options: Any) -> Found:
    """The metagradient of a case over ``ranks``."""
    case = CASES[name]
    problem = problem_of(case)
    learner, initial = spread(problem.learner, problem.initial, ranks)

    def target(theta: Tensor) -> tuple[Tensor, Tensor]:
        phi, gradient = problem.phi_and_gradient(theta)
        if case.targets == 1:
            return phi, gradient
        return torch.stack([phi, theta.square().sum()]), torch.stack([gradient, 2 * theta])

    probes = (START, STEPS - 2) if case.targets == 1 else ()
    how = case.plan, problem.pool_size, probes
    result = replay(learner, initial, target, *how, metaparameters=[WeightDecays()], **options)
    return Found(_figures(result, problem), result.state_bytes)


def twice(ranks: Ranks, name: str, folder: Path) -> tuple[Found, Found]:
    """The same a second time, with states on the disk of ``folder`` and a journal, where the plan wants one."""

    def once(place: Path) -> Found:
        with durable(place, "key", Interval(steps=3), ranks) as (store, journal):
            return found(ranks, name, store=store, journal=journal)

    if isinstance(CASES[name].plan, Segments):
        return once(folder / "first"), once(folder / "second")
    return found(ranks, name), found(ranks, name)


def worst(some: Found, expected: Found) -> float:
    """Largest relative difference of any figure."""
    assert some.figures.keys() == expected.figures.keys()
    pairs = [(some.figures[key].double(), x.double()) for key, x in expected.figures.items()]
    return max(((a - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in pairs)


def bits_apart(first: Found, second: Found) -> int:
    """Elements that differ."""
    assert first.figures.keys() == second.figures.keys()
    return sum(int((x != second.figures[key]).sum()) for key, x in first.figures.items())


def _figures(result: Metagradient, problem: Problem) -> dict[str, Tensor]:
    tensors = {"phi": result.phi, "visits": result.visits, **result.sums, "losses": torch.tensor(result.train_losses)}
    assert result.adjoint is not None
    for name, state in (("final", result.final), ("adjoint", result.adjoint)):
        tensors |= {f"{name}.{i}": x for i, x in enumerate(state.tensors)}
    for point in result.probes:
        g = Probe(problem.learner, point).scores(problem.pool, torch.arange(problem.pool_size))[1]
        tensors |= {f"gamma.{point.step}": point.gamma, f"g.{point.step}": g}
    return tensors


class Scaled(PerExample):
    """Losses of which all that is learnt is a scale, read in ``losses``: theta counts directly, and through no row."""

    def __init__(self) -> None:
        self.model = nn.ParameterDict({"scale": nn.Parameter(torch.ones(3, dtype=torch.float64))})

    def encode(self, params: Params, rows: Rows) -> Features:
        """The rows."""
        return rows

    def losses(self, params: Params, features: Features) -> Tensor:
        """(n,)."""
        return (features[0] @ params["scale"]).exp()


def direct(ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Gradient and curvature product of a scale alone, whole: wrong by a factor of W where each rank counts them."""
    objective = Scaled()
    layout, draw = ParameterLayout.of(objective.model), torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, generator=draw, dtype=torch.float64)
    batch = Batch((x,), torch.arange(7), torch.ones(7, dtype=torch.float64))
    learner = Learner(objective, layout, SGD, constant(1, 0.1), lambda t: batch)
    learner, state = spread(learner, SGD.init(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)), ranks)
    g = learner.gradient(state, 0)[1]
    product = learner.curvature(state, torch.ones_like(state.theta), learner.batches(0))
    return learner.whole(g), learner.whole(product.theta)
