"""What classifiers are measured by: loss and accuracy of labelled rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgd_core.models.classification import MEASURES, ClassificationObjective, Outputs
from mgd_core.training.learner import Learner
from tasks.modality.recipe import objective_of

PIECE = 2000  # rows whose activations are held at once


class LabelledScore(NamedTuple):
    """Loss (nats) and accuracy (share). ``scale``: there is none."""

    loss: float
    accuracy: float
    scale: None = None


@dataclass(frozen=True)
class LabelledTask:
    """Inputs (n, ...) and classes (n,) as a target of a learner's model; PIECE rows at a time."""

    learner: Learner
    inputs: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """n."""
        return len(self.labels)

    def target(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy, nats, and its gradient (P,)."""
        shares = torch.full((1, self.size), 1 / self.size, device=self.inputs.device).split(PIECE, 1)
        rows = zip(self.inputs.split(PIECE), self.labels.split(PIECE), strict=True)
        how = self._objective, self.learner.layout
        pieces = (Outputs(*how, own, share, MEASURES["loss"]) for own, share in zip(rows, shares, strict=True))
        phis, gradients = zip(*(piece(theta) for piece in pieces), strict=True)
        return torch.cat(phis).sum(), torch.cat(gradients).sum(0)

    def score(self, theta: Tensor) -> LabelledScore:
        """Loss and accuracy."""
        found = self.metrics(theta)
        return LabelledScore(found["loss"], found["accuracy"])

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """Loss, nats, and accuracy."""
        logits = self.logits(theta)
        right = (logits.argmax(1) == self.labels).double().mean()
        return {"loss": float(MEASURES["loss"](logits, self.labels).mean()), "accuracy": float(right)}

    def correct(self, theta: Tensor) -> Tensor:
        """Whether the class of each row is the most probable one (n,), bool."""
        return self.logits(theta).argmax(1) == self.labels

    def logits(self, theta: Tensor) -> Tensor:
        """(n, classes)."""
        params, objective = self.learner.layout.unflatten(theta), self._objective
        with torch.no_grad():
            return torch.cat([objective.logits(params, x) for x in self.inputs.split(PIECE)])

    @property
    def _objective(self) -> ClassificationObjective:
        return objective_of(self.learner, ClassificationObjective)
