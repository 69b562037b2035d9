"""Filters that anyone could have used on pairs, without the truth: lowest loss, highest cosine of picture and caption.

Both are by the model that round 0 trained, on the whole pool unless the catalog has a start. A CLIP score that the pool
brought along, by a better model, is another rival: the catalog names it (`expression_baselines`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mgd_core.training.order import generator
from mgd_core.training.streams import CAPTION_BATCHES
from tasks.files.artefacts import publishing
from tasks.modality.recipe import PROBE_BATCH, PoolRecipe, Scores


def losses(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Contrastive loss of every pair, nats."""
    return _scores(recipe, theta)[0]


def cosines(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Cosine of every picture and its caption, the sign turned."""
    return -_scores(recipe, theta)[1]


def _scores(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Losses and cosines (2, n), computed once a run. Losses are taken in batches of a fixed permutation, as each needs
    negatives."""
    path = recipe.run.work("comparison", "pool-scores.npy")
    if not path.exists():
        assert theta is not None
        learner, _ = recipe.learner(seed=0)
        objective, params = learner.objective, learner.layout.unflatten(theta)
        found = np.empty((2, len(recipe)))
        order = generator(0, CAPTION_BATCHES).permutation(len(recipe))
        parts = np.array_split(order, max(1, len(order) // PROBE_BATCH))
        with torch.no_grad():
            for ids, batch in zip(parts, recipe.batches(parts), strict=True):
                image, text = features = objective.encode(params, batch.rows)
                found[0, ids] = objective.losses(params, features).double().cpu().numpy()
                found[1, ids] = (image * text).sum(1).double().cpu().numpy()
        with publishing(path) as file:
            np.save(file, found)
    loaded: Scores = np.load(path)
    return loaded
