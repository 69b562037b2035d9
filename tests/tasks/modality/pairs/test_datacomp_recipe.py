"""DataComp's recipe: what decays and what is clamped, against the rules of open_clip's own training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.training.optimizers import Adam
from tasks.catalog.catalogs import load_catalog
from tasks.evaluation.datacomp import scale_config
from tasks.files.package_data import CATALOGS
from tasks.modality.pairs.model_configs import built_clip, load_model_config
from tasks.modality.registry import open_recipe
from testing.small_catalog import begun, small_catalog

CLAMPED = ('config = "model.json"', 'config = "model.json"\nclamp_logit_scale = true')


@pytest.mark.parametrize("scale", ["small", "medium"])
def test_the_catalogs_say_what_datacomp_prescribes(scale: str) -> None:
    catalog, wanted = load_catalog(CATALOGS / f"datacomp-{scale}.toml"), scale_config(scale)
    learner = catalog.learner
    assert learner.steps * learner.batch == wanted.train_num_samples
    assert (learner.batch, learner.learning_rate, learner.warmup) == (
        wanted.batch_size,
        wanted.learning_rate,
        wanted.warmup,
    )
    open_clips = (learner.b1, learner.b2, learner.eps, learner.weight_decay, learner.schedule)
    assert open_clips == (0.9, 0.98, 1e-6, 0.2, "cosine")
    assert learner.steps - catalog.descent.window_start == 325


def test_the_model_is_open_clips_and_what_decays_is_what_it_lets_decay() -> None:
    """Its `main.py`: no decay of what has less than two dimensions, or is called bn, ln, bias or logit_scale."""
    import open_clip

    config = load_model_config(CATALOGS / "models" / "vit-b-32.json")
    theirs = open_clip.get_model_config("ViT-B-32")
    assert {**config["vision_cfg"]} == theirs["vision_cfg"] and config["embed_dim"] == theirs["embed_dim"]
    assert {**config["text_cfg"]} == theirs["text_cfg"]
    with torch.device("meta"):
        model = built_clip(config, 49408, 0)
    layout = ParameterLayout.of(model)
    mask = layout.unflatten(layout.matrix_mask(torch.empty(layout.length)))
    for name, p in model.named_parameters():
        spared = p.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        assert mask[name].flatten()[0].item() == (not spared), name


def test_a_clamped_scale_is_brought_back_by_the_optimizer_and_not_capped_in_the_loss(tmp_path: Path) -> None:
    directory = begun(small_catalog(tmp_path, CLAMPED), tmp_path / "home")
    with open_recipe(directory) as recipe:
        learner, state = recipe.learner()
        assert isinstance(learner.optimizer, Adam) and learner.optimizer.bounds is not None
        place = learner.layout.place_of("logit_scale")
        assert learner.optimizer.bounds.places.tolist() == [place]
        theta = state.theta.clone()
        theta[place] = math.log(100) + 1
        params = learner.layout.unflatten(theta)
        assert learner.objective.scale(params).item() == pytest.approx(100 * math.e)  # type: ignore[attr-defined]
        after, _ = learner.step(replace_theta(state, theta), 0)
        assert after.theta[place].item() == pytest.approx(math.log(100))
        free = replace(learner.optimizer, bounds=None)
        assert free.update(replace_theta(state, theta), torch.zeros_like(theta), 0, torch.tensor(0.1)).theta[place] > 5


def replace_theta(state, theta):
    return state._replace(theta=theta)


def test_a_catalog_that_says_nothing_of_it_is_known_as_it_was(tmp_path: Path) -> None:
    plain = begun(small_catalog(tmp_path / "a"), tmp_path / "a" / "home").name
    said = (CLAMPED[0], CLAMPED[1].replace("true", "false"))
    assert begun(small_catalog(tmp_path / "b", said), tmp_path / "b" / "home").name == plain
    assert begun(small_catalog(tmp_path / "c", CLAMPED), tmp_path / "c" / "home").name != plain
