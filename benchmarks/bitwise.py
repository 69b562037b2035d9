"""Plans, tiers and resume points against `keep_all` in memory, bit for bit; part of `benchmarks.exactness`.

For small trainings (MLP under Adam, clipped Adam and SGD, two towers, open_clip CLIP), in float32 and in float64: every
kind of plan with several slot counts, its states in memory, in host memory or on disk, left alone or cut off at drawn
instants of both sweeps, once or twice, and gone on from the journal. All tensors of the result are compared: phi,
weights, learning rates, visits, losses, the trained state, the adjoint, probe points.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from mgd_core.engine.journal import Interval, durable
from mgd_core.engine.metagradient import Metagradient
from mgd_core.engine.replay import replay
from mgd_core.plans.actions import Plan, Tier
from mgd_core.plans.kary import kary
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.segments import segments
from mgd_core.training.optimizers import Adam, Optimizer, Sgd
from testing import problems
from testing.oracles import Problem
from testing.samples import first_rows_target, in_float32

STEPS, START = 30, 5
PROBES = (START, 20)
OPTIMIZERS: list[Optimizer] = [Adam(eps_root=1e-8), Adam(eps_root=1e-6, clip_norm=1.0), Sgd(momentum=0.9)]


class CutOff(Exception):
    """Stands for the end of the process."""


def mismatches(quick: bool) -> tuple[int, int]:
    """Comparisons made, and those with another bit anywhere."""
    draw = random.Random(0)
    compared = differing = 0
    for problem in trainings(quick):
        expected = run(problem, keep_all(START, STEPS))
        for plan in plans(quick):
            for cuts in resume_points(draw, quick):
                compared += 1
                differing += not same(run(problem, plan, cuts, draw.randint(1, 5)), expected)
    return compared, differing


def trainings(quick: bool) -> Iterator[Problem]:
    """Each problem in both precisions."""
    pairs = [(problems.classifier, optimizer) for optimizer in OPTIMIZERS]
    pairs += [(problems.two_towers, OPTIMIZERS[0]), (problems.clip, OPTIMIZERS[0])]
    for build, optimizer in pairs[:1] if quick else pairs:
        yield build(optimizer, steps=STEPS)
        yield in_float32(build(optimizer, steps=STEPS))


def plans(quick: bool) -> list[Plan]:
    """Every kind, with few slots and with many, on every tier."""
    few = [
        binomial(START, STEPS, 3),
        kary(START, STEPS, 3),
        segments(START, STEPS, 2, disk_states=4),
        segments(START, STEPS, 2, disk_states=4, tier=Tier.HOST),
    ]
    if quick:
        return few
    more = [keep_all(START, STEPS), binomial(START, STEPS, 1), kary(START, STEPS, 2)]
    return [*few, *more, segments(START, STEPS, 1, disk_states=25), segments(START, STEPS, 3, period=7)]


def resume_points(draw: random.Random, quick: bool) -> Iterator[tuple[int, ...]]:
    """After how many units of work each process ends, but the last: none, one, two of them."""
    yield ()
    yield (draw.randint(1, STEPS + 30 * quick),)
    if not quick:
        yield (draw.randint(STEPS, STEPS + 30),)
        yield draw.randint(1, STEPS), draw.randint(10, STEPS)


def run(problem: Problem, plan: Plan, cuts: tuple[int, ...] = (), interval: int | None = None) -> Metagradient:
    """A traversal, in memory alone without an ``interval``, by as many processes as there are cuts and one more."""
    target = first_rows_target(problem)
    arguments = problem.learner, problem.initial, target, plan, problem.pool_size, PROBES
    if interval is None:
        return replay(*arguments)
    with tempfile.TemporaryDirectory() as place:
        for units in (*cuts, 10**9):
            with durable(Path(place), "key", Interval(steps=interval)) as (store, journal):
                try:
                    return replay(*arguments, on=_end_after(units), store=store, journal=journal)
                except CutOff:
                    continue
    raise AssertionError("the last process is not cut off")


def same(found: Metagradient, expected: Metagradient) -> bool:
    """Whether all tensors agree in every bit."""
    pairs = zip(tensors(found), tensors(expected), strict=True)
    return all(torch.equal(a, b) and torch.equal(a.signbit(), b.signbit()) for a, b in pairs)


def tensors(found: Metagradient) -> list[Tensor]:
    """All that a traversal gives."""
    assert found.adjoint is not None
    probes = [x for point in found.probes for x in (torch.tensor(point.step), point.theta, point.gamma)]
    sums = [found.phi, found.example, found.learning_rate, found.visits, torch.tensor(found.train_losses)]
    return [*sums, *found.final.tensors, *found.adjoint.tensors, *probes]


def _end_after(units: int) -> Callable[[str, int], None]:
    done = [0]

    def on(what: str, t: int) -> None:
        done[0] += 1
        if done[0] == units:
            raise CutOff

    return on
