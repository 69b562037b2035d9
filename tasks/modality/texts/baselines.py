"""Filters that anyone could have used on texts, without metagradients: loss, one-step gradients (LESS), embeddings.

`loss_filter`: lowest loss by the model that round 0 trained on the whole pool. `embedding_filter`: mean last hidden
states of the model as its folder has it, nearest (cosine) to the mean of the target's. `gradient_filter`: LESS (Xia et
al. 2024, arXiv 2402.04333): the recipe is run on a random 5 % of the pool for four epochs, and at the end of each the
direction Adam would move in for a sample alone is compared (cosine) with the target's gradient, weighted by the epoch's
learning rate. Its random projection is left out: gradients are compared whole, which is what it approximates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgd_core.autodiff.derivatives import value_and_gradient
from mgd_core.autodiff.dual_rules import plain_rules
from mgd_core.autodiff.objective import unit_rows
from mgd_core.engine.replay import train
from mgd_core.models.causal_lm import CausalLmObjective
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import State
from mgd_core.training.order import generator
from mgd_core.training.streams import WARM_UP
from tasks.files.progress import announce
from tasks.modality.base import Baseline, Seen
from tasks.modality.recipe import Scores, objective_of
from tasks.modality.texts.recipe import TextRecipe
from tasks.modality.texts.sequences import Sequences
from tasks.pool.columns import mapped, publish_array

AT_ONCE = 32
WARM_UP_SHARE, EPOCHS = 0.05, 4  # Xia et al. 2024, section 4


def by_loss(recipe: TextRecipe, theta: Tensor | None) -> Scores:
    """Loss of every sample, nats."""
    learner, _ = recipe.learner()
    assert theta is not None
    params, found = learner.layout.unflatten(theta), np.empty(len(recipe))
    with torch.no_grad(), plain_rules():
        for ids, batch in zip(_parts(len(recipe)), recipe.batches(list(_parts(len(recipe)))), strict=True):
            found[ids] = learner.objective.encode(params, batch.rows)[0].double().cpu().numpy()
    return found


def by_embedding(recipe: TextRecipe, theta: Tensor | None) -> Scores:
    """Cosine with the target's mean embedding, its sign turned."""
    learner, _ = recipe.learner()
    rows = recipe.task_data.target
    wanted = _embeddings(recipe, learner, rows.sequences, len(rows.questions), "target").mean(0)
    own = _embeddings(recipe, learner, recipe.sequences, len(recipe), "pool")
    return -(own @ unit_rows(wanted[None])[0]).numpy()


def by_gradient(recipe: TextRecipe, theta: Tensor | None) -> Scores:
    """LESS's score, its sign turned."""
    found = np.zeros(len(recipe))
    for number, (learner, state, rate) in enumerate(_checkpoints(recipe)):
        _, wanted = recipe.targets(learner).target.target(state.theta)
        wanted = unit_rows(wanted[None])[0]
        optimizer = replace(learner.optimizer, weight_decay=0.0)  # type: ignore[type-var]
        for i, batch in enumerate(recipe.batches([np.array([i]) for i in range(len(recipe))])):
            _, g = value_and_gradient(learner.objective, learner.layout, state.theta, batch.rows, batch.weights)
            moved = optimizer.update(state, g, learner.steps - 1, torch.ones_like(g[0])).theta
            direction = unit_rows((state.theta - moved)[None])[0]
            found[i] -= rate * float(direction @ wanted)
            announce(f"gradients at checkpoint {number + 1} of {EPOCHS}", i + 1, len(recipe))
    return found


def seen(recipe: TextRecipe, theta: Tensor) -> Seen:
    """Embeddings of the pool by the model as it begins, mapped, and losses by parameters ``theta`` (P,); computed once
    a run, 8 d bytes a text meanwhile."""
    vectors, losses = (recipe.run.work("observed", f"{name}.npy") for name in ("embeddings", "losses"))
    if not vectors.exists():
        learner, _ = recipe.learner()
        found = _embeddings(recipe, learner, recipe.sequences, len(recipe), "pool")
        publish_array(vectors, found.float().numpy())
    if not losses.exists():
        publish_array(losses, by_loss(recipe, theta))
    return Seen((mapped(vectors),), {"loss": mapped(losses)})


BASELINES: Mapping[str, Baseline] = {
    "loss_filter": Baseline(by_loss, by_model=True),
    "embedding_filter": Baseline(by_embedding),
    "gradient_filter": Baseline(by_gradient),
}


def _checkpoints(recipe: TextRecipe) -> Iterator[tuple[Learner, State, float]]:
    """Learner, state and mean learning rate of the warm-up at the end of each epoch."""
    options, n = recipe.catalog.learner, len(recipe)
    size = min(n, max(options.batch, round(WARM_UP_SHARE * n)))
    steps = max(EPOCHS, EPOCHS * size // options.batch)
    short = options.model_copy(update={"steps": steps, "warmup": round(options.warmup * steps / options.steps)})
    small = recipe.with_sections(learner=short)
    counts = np.zeros(n, np.int64)
    counts[generator(recipe.catalog.descent.seed, WARM_UP).permutation(n)[:size]] = 1
    learner, state = small.learner(counts, recipe.catalog.descent.seed)
    for epoch in range(EPOCHS):
        start, stop = (steps * at // EPOCHS for at in (epoch, epoch + 1))
        state, _ = train(learner, state, start, stop)
        yield learner, state, float(learner.learning_rates[start:stop].mean())


def _embeddings(recipe: TextRecipe, learner: Learner, sequences: Sequences, n: int, name: str) -> Tensor:
    """Unit mean hidden states (n, d) of the first n sequences, by the model as it begins."""
    model, device = objective_of(learner, CausalLmObjective).model, recipe.catalog.runtime.device
    found = []
    for ids in _parts(n):
        inputs = sequences.rows(ids)[0].to(device)
        inside = torch.from_numpy(np.arange(inputs.shape[1])[None] < (sequences.lengths[ids] - 1)[:, None]).to(device)
        with torch.no_grad(), plain_rules():
            states = model.hidden(inputs).double()
        found.append(unit_rows((states * inside[:, :, None]).sum(1) / inside.sum(1, keepdim=True)).cpu())
        announce(f"embeddings: {name}", int(ids[-1]) + 1, n)
    return torch.cat(found)


def _parts(n: int) -> Iterator[npt.NDArray[np.int64]]:
    return (np.arange(at, min(at + AT_ONCE, n)) for at in range(0, n, AT_ONCE))
