"""One-step gradient similarity, LESS (Xia et al. 2024, arXiv 2402.04333) for pairs: what one step on a pair does to
the target's loss at points of a training.

A contrastive loss leaves a pair no loss of its own, so it joins the batch of a step as one pair more, as a candidate of
a probe does (`mgd_core.engine.probe`), and its score is the derivative of the target's loss right after that step by
its weight: through Adam with its moments, summed over points of the training, where LESS takes the cosine of Adam's
direction with the target's gradient. The cosine is left out: it would need every pair's own gradient, which in a batch
is a backward pass through the whole batch, and it is there for the lengths of texts. So a point costs one forward-mode
pass over the pool, and the score is the metagradient of a window of a single step.

The warm-up is the recipe itself on the whole pool, up to the last point: a CLIP that begins with random weights has
learnt nothing from a twentieth of its pool.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import ProbePoint, train
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import State
from tasks.files.progress import announce
from tasks.modality.recipe import PROBE_BATCH, PoolRecipe, Scores, TargetTask

POINTS = 4  # as many as LESS has epochs


def one_step_effects(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """d target loss / d weight of every pair in the step at each point, summed, nats: the lowest help most. ``theta``
    is not asked. Costs a training but for its last eighth, and ``POINTS`` passes over the pool in forward mode."""
    learner, state = recipe.learner(seed=recipe.catalog.descent.seed)
    target, n, done = recipe.targets(learner).target, len(recipe), 0
    found = np.zeros(n)
    parts = [np.arange(at, min(at + PROBE_BATCH, n)) for at in range(0, n, PROBE_BATCH)]
    for number, t in enumerate(points(learner.steps), start=1):
        state, _ = train(learner, state, done, t)
        done = t
        probe = Probe(learner, step_point(learner, state, t, target))
        for i, (ids, batch) in enumerate(zip(parts, recipe.batches(parts), strict=True), start=1):
            found[ids] += probe.scores(batch.rows, batch.ids)[1].double().cpu().numpy()
            announce(f"one-step effects at point {number}", i, len(parts))
    return found


def points(steps: int) -> list[int]:
    """The steps in the middle of each of as many parts of a training: before its first quarter ends the most is learnt,
    and at its end nothing moves any more."""
    return sorted({steps * (2 * part + 1) // (2 * POINTS) for part in range(POINTS)})


def step_point(learner: Learner, state: State, t: int, target: TargetTask) -> ProbePoint:
    """Where step ``t`` begins at ``state``, and the derivative (P,) of the target's loss after it by its gradient."""
    batch = learner.batches(t)
    _, g = learner.gradient(state, t, batch)
    optimizer, lr = learner.optimizer_at(t), learner.lr(t, state.theta)
    after = optimizer.update(state, g, t, lr)
    _, wanted = target.target(after.theta)
    adjoint = State(wanted, tuple(torch.zeros_like(one) for one in after.moments))
    return ProbePoint(t, state.theta, optimizer.vjp(state, g, t, lr, adjoint).gradient)
