"""CoLoR-Filter (Brandfonbrener et al. 2024, arXiv 2406.10670): what a model tuned on the target finds easier.

A pair's score is its loss by the prior less its loss by the conditional model: the prior is what round 0 trained on the
pool, the conditional one that model tuned further on the target task. It is tuned on the task's own zero-shot loss, all
pictures at every step, and not contrastively on pictures beside class texts: a target has fewer classes than a batch
has rows, so that most negatives would be of the picture's own class. Of its states the one of the least held-out loss
is taken, as rounds are; nothing is drawn at random.
"""

from __future__ import annotations

from torch import Tensor

from tasks.files.progress import announce
from tasks.modality.pairs.observed import observed
from tasks.modality.recipe import PoolRecipe, Scores

SHARE = 4
"""The training's steps are so many times those of the tuning, which is the recipe's schedule in small."""


def loss_differences(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Loss of every pair by the conditional model less that by the prior, nats, in the same batches: the lowest are
    those that the target made easier. Costs the tuning, and a pass over the pool."""
    assert theta is not None
    prior = observed(recipe, theta).losses
    return observed(recipe, tuned(recipe, theta)).losses - prior


def tuned(recipe: PoolRecipe, theta: Tensor) -> Tensor:
    """``theta`` (P,) after the steps on the target, at least one, that lower the held-out loss most."""
    options = recipe.catalog.learner
    steps = max(1, options.steps // SHARE)
    warmup = options.warmup * steps // options.steps
    small = recipe.with_sections(learner=options.model_copy(update={"steps": steps, "warmup": warmup}))
    learner, _ = small.learner(seed=0)
    tasks, state = small.targets(learner), learner.optimizer.init(theta)
    best, least = theta, float("inf")
    for t in range(steps):
        _, g = tasks.target.target(state.theta)
        state = learner.optimizer.update(state, g, t, learner.lr(t, theta))
        loss = tasks.heldout.score(state.theta).loss
        if loss < least:
            best, least = state.theta, loss
        announce("tune on the target", t + 1, steps)
    return best
