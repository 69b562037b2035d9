"""Changed training samples: which they are, what is allowed of them, and a training that reads them.

Pixels stay those of valid pictures, labels probabilities of classes: two metaparameters of the engine
(mgd_core.engine.metaparameters.Inputs), whatever method changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from mgd_core.engine.metaparameters import Inputs
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.order import generator
from mgd_core.training.streams import POISONS
from tasks.modality.classification.modality import ClassificationRecipe
from tasks.modality.classification.pictures import MEAN, SPREAD
from tasks.modality.tensor_files import publish_tensors

LOW, HIGH = (0 - MEAN) / SPREAD, (1 - MEAN) / SPREAD  # a pixel's range in the pictures' units


@dataclass(frozen=True)
class Poison:
    """Changed samples: positions (m,) in the training split, pixels (m, channels, side, side), soft labels (m, C)."""

    ids: Tensor
    pixels: Tensor
    labels: Tensor


def start_of(study: ClassificationRecipe) -> Poison:
    """The samples that are to be changed, as they are: a random share of the training split."""
    o, n = study.catalog.poison, len(study.train)
    count = max(1, round(o.share * n))
    ids = torch.from_numpy(generator(o.seed, POISONS, 0).permutation(n)[:count]).sort().values
    ids = ids.to(study.train.labels.device)
    labels = F.one_hot(study.train.labels[ids], len(study.classes)).to(study.train.pixels.dtype)
    return Poison(ids, study.train.pixels[ids], labels)


def kinds_of(study: ClassificationRecipe, found: Poison) -> tuple[Inputs, Inputs]:
    """The metaparameters: pixels and labels of the poisons."""
    n = len(study.train)
    pixels = Inputs(0, found.ids, n, tuple(found.pixels.shape[1:]), low=LOW, high=HIGH)
    return pixels, Inputs(1, found.ids, n, tuple(found.labels.shape[1:]), simplex=True)


def poisoned(study: ClassificationRecipe, learner: Learner, found: Poison) -> Learner:
    """The learner that trains on the poisoned set: soft labels for all, changed rows for the poisons."""
    classes = len(study.classes)

    def batches(t: int) -> Batch:
        batch = learner.batches(t)
        pixels, labels = batch.rows
        return batch._replace(rows=(pixels, F.one_hot(labels, classes).to(pixels.dtype)))

    pixels, labels = kinds_of(study, found)
    return labels.placed(pixels.placed(replace(learner, batches=batches), found.pixels), found.labels)


def save_poison(path: Path, found: Poison, **beside: Tensor) -> None:
    """Write the poisons, and the tensors ``beside`` them, durably."""
    tensors = {"ids": found.ids, "pixels": found.pixels, "labels": found.labels, **beside}
    publish_tensors(path, tensors)


def load_poison(path: Path, device: torch.device | str = "cpu") -> Poison:
    """The poisons of a file."""
    tensors = load_file(path, device=str(device))
    return Poison(tensors["ids"], tensors["pixels"], tensors["labels"])
