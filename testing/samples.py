"""Small learners shared by the engine's tests, on the CPU or, with MGD_TEST_DEVICE=cuda, on a GPU."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mgd_core.engine.over_ranks import Target
from mgd_core.training.learner import Batch
from mgd_core.training.optimizers import Adam, Optimizer, Sgd
from testing import problems
from testing.oracles import Problem, on_device

DEVICE = torch.device(os.environ.get("MGD_TEST_DEVICE", "cpu"))
ADAM = Adam(eps_root=1e-6, weight_decay=0.05)
CLIPPED = Adam(eps_root=1e-6, weight_decay=0.05, clip_norm=0.5)
SGD = Sgd(momentum=0.9, weight_decay=0.01)


def small(
    build: Callable[..., Problem] = problems.two_towers, optimizer: Optimizer = ADAM, steps: int = 12, **others: Any
) -> Problem:
    """A problem of testing.problems with fewer steps."""
    problem = build(optimizer, steps=steps, **others)
    return problem if DEVICE.type == "cpu" else on_device(problem, DEVICE)


def in_float32(problem: Problem) -> Problem:
    """The same learner in single precision."""
    learner = problem.learner
    learner.objective.model.float()  # type: ignore[attr-defined]

    def batches(t: int) -> Batch:
        batch = learner.batches(t)
        return Batch(tuple(_single(x) for x in batch.rows), batch.ids, batch.weights.float())

    changed = dataclasses.replace(learner, batches=batches)
    initial = learner.optimizer.init(problem.initial.theta.float())
    pool = tuple(_single(x) for x in problem.pool)
    return dataclasses.replace(problem, learner=changed, initial=initial, pool=pool)


def first_rows_target(problem: Problem) -> Target:
    """phi = mean loss of the pool's first rows, in the precision of the state."""

    def target(theta: Tensor) -> tuple[Tensor, Tensor]:
        theta = theta.detach().requires_grad_(True)
        rows = tuple(x[:8] for x in problem.pool)
        with torch.enable_grad():
            params = problem.learner.layout.unflatten(theta)
            objective = problem.learner.objective
            phi = objective.losses(params, objective.encode(params, rows)).mean()
            (gradient,) = torch.autograd.grad(phi, theta)
        return phi.detach(), gradient

    return target


def _single(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x
