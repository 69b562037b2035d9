"""What a model sees of a pool: the same numbers as the model asked plainly, and what is kept is not computed again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mgd_core.models.clip import ClipObjective
from tasks.modality.pairs.baselines import cosines, losses
from tasks.modality.pairs.modality import PairRecipe
from tasks.modality.pairs.observed import observed
from tasks.modality.recipe import objective_of
from tasks.modality.registry import open_recipe
from testing.small_catalog import begun, small_catalog


def test_it_is_the_model_asked_plainly(tmp_path: Path) -> None:
    with open_recipe(begun(small_catalog(tmp_path), tmp_path / "home")) as recipe:
        assert isinstance(recipe, PairRecipe)
        learner, state = recipe.learner(seed=3)
        found, n = observed(recipe, state.theta), len(recipe)
        (kept,) = recipe.run.work("observed").glob("*/losses.npy")
        written = kept.stat().st_mtime_ns
        objective, params = objective_of(learner, ClipObjective), learner.layout.unflatten(state.theta)
        rows = recipe.rows(np.arange(n))
        with torch.no_grad():
            image, text = features = objective.encode(params, rows)
            nats = objective.losses(params, features)
        np.testing.assert_allclose(found.images, image.numpy(), atol=2e-6)
        np.testing.assert_allclose(found.texts, text.numpy(), atol=2e-6)
        np.testing.assert_allclose(found.cosines, (image * text).sum(1).numpy(), atol=2e-6)
        np.testing.assert_allclose(found.losses, nats.numpy(), atol=1e-5)  # a small pool is one batch
        assert not (observed(recipe, state.theta / 2).losses == found.losses).all(), "another model sees otherwise"
        np.testing.assert_array_equal(losses(recipe, state.theta), found.losses)
        assert kept.stat().st_mtime_ns == written, "what is kept is not computed again"
        assert (cosines(recipe, state.theta) <= 1).all()
