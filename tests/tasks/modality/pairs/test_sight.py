"""What CLIPs see of single pairs: the loss by its definition, the same from a file, in any pool, in any company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mgd_core.models.clip import ClipObjective
from tasks.modality.pairs.sight import PairSight
from tasks.modality.recipe import objective_of
from tasks.modality.registry import modality_of, open_recipe
from testing.small_catalog import begun, small_catalog


def test_it_is_the_definition_and_travels(tmp_path: Path) -> None:
    with open_recipe(begun(small_catalog(tmp_path), tmp_path / "home")) as recipe:
        learner, state = recipe.learner(seed=3)
        other = learner.layout.flatten(dict(learner.layout.unflatten(state.theta * 1.5)))
        states, modality, n = {"last": state.theta, "early": other}, modality_of(recipe.catalog), len(recipe)
        seen = modality.seen(recipe, states)
        sight = modality.sight(recipe, states)
        assert isinstance(sight, PairSight)
        assert list(seen.numbers) == ["loss last", "cosine last", "loss early", "cosine early"]
        rows = recipe.rows(np.arange(n))
        for name, theta in states.items():
            objective = objective_of(learner, ClipObjective)
            params = learner.layout.unflatten(theta)
            with torch.no_grad():
                image, text = (x.double() for x in objective.encode(params, rows))
                scale = objective.scale(params).double()
            # All of this small pool are reference pairs, so the loss is InfoNCE's with each pair's doubles left out.
            logits = scale * image @ text.T
            doubles = ((image @ image.T > 1 - 1e-5) & (text @ text.T > 1 - 1e-5)).fill_diagonal_(False)
            logits = logits.masked_fill(doubles, -torch.inf)
            nats = (logits.logsumexp(1) + logits.logsumexp(0)) / 2 - logits.diagonal()
            np.testing.assert_allclose(seen.numbers[f"loss {name}"], nats.numpy(), atol=2e-5)
            np.testing.assert_allclose(seen.numbers[f"cosine {name}"], (image * text).sum(1).numpy(), atol=2e-6)
        tensors, told = sight.packed()
        again = modality.unpacked(tensors, told)
        ids = np.array([7, 3, 200, 3])
        for one in (sight.of(recipe.pool, ids), again.of(recipe.pool, ids)):
            for mine, theirs in zip(one.vectors, seen.vectors, strict=True):
                np.testing.assert_allclose(mine, theirs[ids], atol=2e-6)
            for name, column in one.numbers.items():
                np.testing.assert_allclose(column, seen.numbers[name][ids], atol=2e-5)
        assert len(sight.of(recipe.pool, ids[:0]).vectors[0]) == 0
