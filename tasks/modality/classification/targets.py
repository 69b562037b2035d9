"""What a study's trainings are measured by: loss and accuracy of its splits."""

from __future__ import annotations

import torch
from torch import Tensor

from mgd_core.classification import MEASURES, ClassificationObjective, Outputs
from mgd_core.learner import Learner
from mgd_core.replay import Target
from tasks.modality.classification.pictures import Pictures
from tasks.modality.classification.recipe import ClassificationRecipe
from tasks.modality.recipe import objective_of

PIECE = 2000  # pictures whose activations are held at once
SCORES = ("target_loss", "target_accuracy", "test_loss", "test_accuracy")


def target_of(learner: Learner, pictures: Pictures) -> Target:
    """Mean cross-entropy of a split, nats, as a target; PIECE pictures at a time."""
    shares = torch.full((1, len(pictures)), 1 / len(pictures), device=pictures.pixels.device).split(PIECE, 1)
    rows = zip(pictures.pixels.split(PIECE), pictures.labels.split(PIECE), strict=True)
    how = objective_of(learner, ClassificationObjective), learner.layout
    pieces = [Outputs(*how, own, share, MEASURES["loss"]) for own, share in zip(rows, shares, strict=True)]

    def target(theta: Tensor) -> tuple[Tensor, Tensor]:
        phis, gradients = zip(*(piece(theta) for piece in pieces), strict=True)
        return torch.cat(phis).sum(), torch.cat(gradients).sum(0)

    return target


def score_of(recipe: ClassificationRecipe, learner: Learner, theta: Tensor) -> dict[str, float]:
    """Loss, nats, and accuracy of the target and test splits."""
    scores = {}
    for name, pictures in (("target", recipe.target), ("test", recipe.test)):
        logits = logits_of(learner, theta, pictures)
        scores[f"{name}_loss"] = float(MEASURES["loss"](logits, pictures.labels).mean())
        scores[f"{name}_accuracy"] = float((logits.argmax(1) == pictures.labels).double().mean())
    return scores


def right_of(learner: Learner, theta: Tensor, pictures: Pictures) -> Tensor:
    """Whether the class of each picture is the most probable one (n,), bool."""
    return logits_of(learner, theta, pictures).argmax(1) == pictures.labels


def logits_of(learner: Learner, theta: Tensor, pictures: Pictures) -> Tensor:
    """(n, classes), PIECE pictures at a time."""
    params, objective = learner.layout.unflatten(theta), objective_of(learner, ClassificationObjective)
    with torch.no_grad():
        return torch.cat([objective.logits(params, x) for x in pictures.pixels.split(PIECE)])
