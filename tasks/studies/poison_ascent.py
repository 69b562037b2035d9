"""The metagradient ascent of a poisoning: every pixel one way or the other by the same amount, labels on the simplex.

Metagradients change by orders of magnitude along the way, so a step takes their direction alone (Engstrom et al. 2025,
arXiv 2503.13751, leave the rule open). The motion is momentum over metagradients, each divided by its mean size, as
iterative fast gradient sign methods have it (Dong et al. 2018, arXiv 1710.06081, equation 6); pixels move by its sign,
and a label by its part along the simplex, whose largest entry moves by the step size. A step may see a part of the
target split only, another one each time: cheaper, and none is overfitted to. Cost: a training and a reverse sweep.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mgd_core.engine.replay import Target, replay
from mgd_core.plans.plan import keep_all
from mgd_core.training.learner import Learner
from mgd_core.training.order import generator
from mgd_core.training.streams import POISONS
from tasks.modality.classification.modality import ClassificationRecipe
from tasks.modality.classification.pictures import Pictures
from tasks.studies.poisons import HIGH, LOW, Poison, kinds_of, load_poison, poisoned, save_poison, start_of

TARGETS = 2  # stream of the parts of the target split, after those of the poisons and of noise


@dataclass(frozen=True)
class Ascent:
    """Where an ascent is: the poisons, and the motion of their pixels and labels, of the same shapes."""

    found: Poison
    pixel_motion: Tensor
    label_motion: Tensor

    def save(self, path: Path) -> None:
        """Write it, as poisons with the motion beside."""
        save_poison(path, self.found, pixel_motion=self.pixel_motion, label_motion=self.label_motion)


def load_ascent(path: Path, device: torch.device | str) -> Ascent:
    """The ascent of a file."""
    tensors = load_file(path, device=str(device))
    return Ascent(load_poison(path, device), tensors["pixel_motion"], tensors["label_motion"])


def begin(study: ClassificationRecipe) -> Ascent:
    """At the samples as they are, at rest."""
    found = start_of(study)
    return Ascent(found, torch.zeros_like(found.pixels), torch.zeros_like(found.labels))


def stepped(study: ClassificationRecipe, at: Ascent, number: int) -> Ascent:
    """The ascent after its step ``number``, from 1 on."""
    o, found, kinds = study.catalog.poison, at.found, kinds_of(study, at.found)
    learner, state = study.learner()
    target, plan = study.task(learner, seen(study, number)).target, keep_all(0, learner.steps)
    result = replay(poisoned(study, learner, found), state, target, plan, len(study.train), metaparameters=kinds)
    up, of_labels = (result.sums[kind.name] for kind in kinds)
    of_labels = of_labels - of_labels.mean(1, keepdim=True)  # along the simplex: its sum stays
    size, least = step_size(study, number), torch.finfo(up.dtype).tiny
    pixel_motion = o.momentum * at.pixel_motion + up / up.abs().mean().clamp(min=least)
    label_motion = o.momentum * at.label_motion + of_labels / of_labels.abs().mean().clamp(min=least)
    pixels = kinds[0].projected(found.pixels + size * (HIGH - LOW) * pixel_motion.sign())
    labels = found.labels
    if o.labels:
        largest = label_motion.abs().amax(1, keepdim=True).clamp(min=least)
        labels = kinds[1].projected(labels + size * label_motion / largest)
    return Ascent(Poison(found.ids, pixels, labels), pixel_motion, label_motion)


def target_in_parts(study: ClassificationRecipe, learner: Learner) -> Target:
    """A target that shows, each time it is asked, what the next step of the ascent would see."""
    numbers = count(1)
    return lambda theta: study.task(learner, seen(study, next(numbers))).target(theta)


def step_size(study: ClassificationRecipe, number: int) -> float:
    """Of step ``number``, from 1 on: the same for all, or falling from the first one's linearly to zero."""
    o = study.catalog.poison
    return o.step_size * (1 - (number - 1) / o.steps) if o.decay == "linear" else o.step_size


def seen(study: ClassificationRecipe, number: int) -> Pictures:
    """The target pictures whose loss step ``number`` raises: all, or so many drawn by (seed, number) alone."""
    o, target = study.catalog.poison, study.target
    if o.target_batch is None or o.target_batch >= len(target):
        return target
    drawn = generator(o.seed, POISONS, TARGETS, number).permutation(len(target))[: o.target_batch]
    at = torch.from_numpy(drawn).to(target.labels.device)
    return Pictures([target.uids[i] for i in drawn.tolist()], target.pixels[at], target.labels[at])
