"""What a study's trainings are measured by: loss and accuracy of its splits."""

from __future__ import annotations

import torch
from torch import Tensor

from mgd_core.classification import MEASURES, ClassificationObjective, Outputs
from mgd_core.learner import Learner
from mgd_core.replay import Target
from tasks.pictures import Pictures
from tasks.study_bench import StudyBench

SCORES = ("target_loss", "target_accuracy", "test_loss", "test_accuracy")


def target_of(learner: Learner, pictures: Pictures) -> Target:
    """Mean cross-entropy of a split, nats, as a target."""
    groups = torch.full((1, len(pictures)), 1 / len(pictures), device=pictures.pixels.device)
    rows = (pictures.pixels, pictures.labels)
    outputs = Outputs(_objective(learner), learner.layout, rows, groups, MEASURES["loss"])

    def target(theta: Tensor) -> tuple[Tensor, Tensor]:
        phi, gradient = outputs(theta)
        return phi[0], gradient[0]

    return target


def score_of(bench: StudyBench, learner: Learner, theta: Tensor) -> dict[str, float]:
    """Loss, nats, and accuracy of the target and test splits."""
    scores = {}
    for name, pictures in (("target", bench.target), ("test", bench.test)):
        with torch.no_grad():
            logits = _objective(learner).logits(learner.layout.unflatten(theta), pictures.pixels)
        scores[f"{name}_loss"] = float(MEASURES["loss"](logits, pictures.labels).mean())
        scores[f"{name}_accuracy"] = float((logits.argmax(1) == pictures.labels).double().mean())
    return scores


def _objective(learner: Learner) -> ClassificationObjective:
    assert isinstance(learner.objective, ClassificationObjective)
    return learner.objective
