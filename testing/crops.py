"""Oracles of training crops (`tasks.modality.pairs.augmentation`): open_clip's transform told which box to cut,
torchvision's rule told which numbers to draw, and a small run that crops with its training written a second time."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor
from torch.func import functional_call
from torchvision.transforms import RandomResizedCrop, transforms

from mgd_core.autodiff.layout import Params
from mgd_core.autodiff.objective import Rows
from mgd_core.models.clip import CLIP_MEAN, CLIP_STD, ClipObjective, initial_parameters
from mgd_core.training.learner import Batch
from tasks.catalog.catalogs import load_catalog
from tasks.catalog.pair_catalog import AugmentationOptions
from tasks.curation.begin import begin_run
from tasks.modality.pairs.augmentation import Box, Draws, crop_box, training_draws
from tasks.modality.pairs.modality import PairRecipe
from tasks.pool.decoding import decode
from tasks.pool.pools import build_pool
from testing.oracles import Problem
from testing.problems import plain_info_nce
from testing.small_catalog import small_catalog

Pixels = npt.NDArray[np.uint8]


def picture_file(width: int, height: int, seed: int = 0, form: str = "JPEG", mode: str = "RGB") -> bytes:
    """A picture's file: noise over a ramp, so that neither its sides nor its colours are alike."""
    draw, buffer = np.random.default_rng(seed), io.BytesIO()
    ramp = np.linspace(0, 160, width * height).reshape(height, width, 1)
    values = (ramp + draw.integers(0, 90, (height, width, 3))).astype(np.uint8)
    Image.fromarray(values).convert(mode).save(buffer, form)
    return buffer.getvalue()


def begun(place: Path, *changes: tuple[str, str]) -> Path:
    """A run of the small catalog with these changes."""
    return begin(small_catalog(place, *changes))


def begin(catalog: Path) -> Path:
    """A run of a catalog, in `home` beside it."""
    options, home = load_catalog(catalog), catalog.parent / "home"
    pool = build_pool(str(options.pool.source), home, options.pool.build_options())
    return begin_run(home, catalog, pool).directory


def open_clip_crop(image: Image.Image, box: Box, size: int) -> Pixels:
    """Pixels (3, size, size) that open_clip's transform makes of a picture when it happens to draw ``box``; its own
    normalisation undone."""
    left, top, width, height = box
    transform = image_transform(size, is_train=True, mean=(0.0,) * 3, std=(1.0,) * 3)
    with patch.object(RandomResizedCrop, "get_params", staticmethod(lambda *_: (top, left, height, width))):
        return (transform(image) * 255).round().to(torch.uint8).numpy()


def open_clip_crops(recipe: PairRecipe, ids: Any, draws: Draws) -> Tensor:
    """Pictures of a recipe's samples, each once, as open_clip's transform crops them for these draws."""
    files = recipe.stored.columns.encoded(np.asarray(ids))
    images, options = [decode(data).image for data in files], recipe.catalog.augmentation or AugmentationOptions()
    boxes = [crop_box(one, *image.size, options) for one, image in zip(draws, images, strict=True)]
    cut = [open_clip_crop(image, box, recipe.side) for image, box in zip(images, boxes, strict=True)]
    return torch.from_numpy(np.stack(cut))


def cropped_problem(recipe: PairRecipe) -> Problem:
    """The training of round 0 in float64, its losses written a second time; the target: thirty of its pairs, whole."""
    model, own = recipe.model(0).double(), recipe.learner()[0]

    def batches(t: int) -> Batch:
        batch = own.batches(t)
        return batch._replace(weights=batch.weights.double())

    learner = dataclasses.replace(own, objective=ClipObjective(model), batches=batches)
    theta = initial_parameters(model, learner.layout, torch.float64)

    def losses(params: Params, rows: Rows) -> Tensor:
        pixels = (rows[0].double() / 255 - CLIP_MEAN) / CLIP_STD
        image, text, scale = functional_call(model, dict(params), (pixels, rows[1]))[:3]
        return plain_info_nce(image, text, scale.clamp(max=100))

    def joining(params: Params, pair: Rows, others: Rows) -> Tensor:
        return losses(params, tuple(torch.cat([x, y]) for x, y in zip(others, pair, strict=True)))[-1]

    unseen, pool = recipe.rows(np.arange(200, 230)), recipe.rows(np.arange(len(recipe)))
    return Problem(
        "cropped", learner, learner.optimizer.init(theta), pool, losses, joining, lambda p: losses(p, unseen).mean()
    )


def cut_by_open_clip(recipe: PairRecipe, problem: Problem) -> Problem:
    """The same, its batches cropped by open_clip's transform, step by step, before anything trains."""
    cut: list[Batch] = []
    for batch in map(problem.learner.batches, range(problem.learner.steps)):
        draws = training_draws(len(batch.ids), recipe.seed, 0, len(cut))
        pixels = open_clip_crops(recipe, batch.ids.numpy(), draws)
        cut.append(batch._replace(rows=(pixels, batch.rows[1])))
    learner = dataclasses.replace(problem.learner, batches=cut.__getitem__)
    return dataclasses.replace(problem, learner=learner)


def torchvision_box(draws: Draws, width: int, height: int, scale: Any, ratio: Any) -> Box:
    """The box of torchvision's own code when its generator gives ``draws``, in float64."""
    with patch.object(transforms, "torch", _Drawn(draws)):
        top, left, h, w = RandomResizedCrop.get_params(Image.new("L", (width, height)), scale, ratio)
    return left, top, w, h


class _Drawn:
    """torch, as `get_params` sees it: an attempt draws area and ratio, and, where these fit, top and left."""

    exp = staticmethod(torch.exp)

    def __init__(self, draws: Draws) -> None:
        self.draws, self.uniforms, self.places = draws, 0, 0

    def log(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()

    def tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def empty(self, _: int) -> _Drawn:
        return self

    def uniform_(self, low: float, high: float) -> torch.Tensor:
        attempt, which = divmod(self.uniforms, 2)
        self.uniforms += 1
        return self.tensor(float(low) + (float(high) - float(low)) * self.draws[attempt, which])

    def randint(self, low: int, high: int, size: tuple[int]) -> torch.Tensor:
        drawn = self.draws[self.uniforms // 2 - 1, 2 + self.places]
        self.places += 1
        return torch.tensor(int(low + (high - low) * drawn))
