"""What may be asked of a CLIP's pictures and texts: one of several classes, captions, several labels at once.

Each is a number of questions: a row of cosines, of which some columns are right. A row's loss is the mean over its
right columns of the cross-entropy of that column against the wrong ones,

    l_r = 1/|R| sum_{j in R} log(1 + sum_{k not in R} exp(s (c_k - c_j))),

so that right columns do not compete with each other, and the loss of a task the weighted mean over its rows at inverse
temperature s. Classification asks of each picture its class (rows weigh the same, or classes do). Retrieval asks each
picture for its captions and each caption for its picture: InfoNCE in both directions (Radford et al. 2021), a picture's
captions together weighing as much as another's. Multilabel asks each class for its pictures, classes weighing the same:
as mean average precision, it ranks pictures, and needs no threshold. In s all are convex, so the best s is found by
bisection on the derivative, in float64: deterministic, without a step size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from mgd_core.autodiff.objective import log_sum_exp, unit_rows


class Questions(NamedTuple):
    """``cosines`` (r, c), which columns are ``right`` (r, c) bool, and what each row weighs (r,), 1 in all."""

    cosines: Tensor
    right: Tensor
    weights: Tensor

    def loss(self, scale: Tensor | float) -> Tensor:
        """Weighted mean over the rows, nats."""
        logits = scale * self.cosines
        wrong = log_sum_exp(logits.masked_fill(self.right, float("-inf")), 1)[:, None]
        each = torch.where(self.right, torch.logaddexp(wrong, logits) - logits, 0)
        return (self.weights.to(logits) * each.sum(1) / self.right.sum(1)).sum()

    def slope(self, scale: float) -> float:
        """Derivative of the loss by the inverse temperature, in float64."""
        cosines = self.cosines.detach().double()
        logits = scale * cosines
        masked = logits.masked_fill(self.right, float("-inf"))
        expected = (torch.softmax(masked, 1) * cosines).sum(1, keepdim=True)
        missed = torch.sigmoid(torch.logsumexp(masked, 1, keepdim=True) - logits)
        each = torch.where(self.right, missed * (expected - cosines), 0).sum(1) / self.right.sum(1)
        return float((self.weights.to(each) * each).sum())


@dataclass(frozen=True)
class PictureTask(ABC):
    """Pictures (n, 3, H, W) uint8 and texts as tokens (m, L)."""

    images: Tensor
    tokens: Tensor
    metric: str = "acc1"

    @abstractmethod
    def cosines(self, images: Tensor, texts: Tensor) -> Tensor:
        """Of pictures (n, d) with what they may be, (n, c), from unit features of pictures and of texts (m, d)."""

    @abstractmethod
    def questions(self, cosines: Tensor) -> list[Questions]:
        """What is asked; the loss is the mean over what is returned."""

    @abstractmethod
    def correct(self, cosines: Tensor) -> Tensor:
        """Whether the nearest of each picture (n,) is right."""

    def measures(self, cosines: Tensor) -> dict[str, float]:
        """All that is measured beside the loss, by metric, ``metric`` among them."""
        return {"acc1": float(self.correct(cosines).double().mean())}

    def loss(self, cosines: Tensor, scale: Tensor | float) -> Tensor:
        """At an inverse temperature, nats."""
        found = [each.loss(scale) for each in self.questions(cosines)]
        return torch.stack(found).mean()

    def best_scale(self, cosines: Tensor, iterations: int = 60) -> float:
        """The inverse temperature in [1e-3, 1e3] that minimises the loss."""
        questions, low, high = self.questions(cosines.detach()), 1e-3, 1e3
        for _ in range(iterations):
            middle = (low * high) ** 0.5
            slope = sum(each.slope(middle) for each in questions)
            low, high = (middle, high) if slope < 0 else (low, middle)
        return (low * high) ** 0.5

    @property
    @abstractmethod
    def columns(self) -> int:
        """What a picture may be."""

    @property
    def chance(self) -> float:
        """The loss where nothing is known, nats."""
        questions = self.questions(torch.zeros(()).expand(len(self.images), self.columns))
        wrong = [(each.weights * (~each.right).sum(1).double().log1p()).sum() for each in questions]
        return torch.stack(wrong).mean().item()


@dataclass(frozen=True)
class ClassTask(PictureTask):
    """Each picture is of one class; ``labels`` (n,); a class is the mean of its ``per_class`` texts, renormalised.
    With the metric ``mean_per_class_recall`` classes weigh the same, else pictures."""

    labels: Tensor = field(kw_only=True)
    per_class: int = field(default=1, kw_only=True)

    def cosines(self, images: Tensor, texts: Tensor) -> Tensor:
        """Of pictures with classes."""
        return images @ unit_rows(texts.view(self.columns, self.per_class, -1).mean(1)).T

    def questions(self, cosines: Tensor) -> list[Questions]:
        """Each picture for its class."""
        labels = self.labels.to(cosines.device)
        right = labels[:, None] == torch.arange(self.columns, device=cosines.device)
        sizes = right.sum(0)
        weights = torch.full((len(labels),), 1 / len(labels), dtype=torch.float64, device=cosines.device)
        if self.metric == "mean_per_class_recall":
            weights = 1 / (sizes[labels] * (sizes > 0).sum()).double()
        return [Questions(cosines, right, weights)]

    def correct(self, cosines: Tensor) -> Tensor:
        """Whether the nearest class is the own."""
        return cosines.argmax(1) == self.labels.to(cosines.device)

    def measures(self, cosines: Tensor) -> dict[str, float]:
        """Accuracy over pictures and over classes."""
        correct = self.correct(cosines).double().cpu()
        sizes = torch.bincount(self.labels.cpu(), minlength=self.columns)
        by_class = torch.bincount(self.labels.cpu(), correct, self.columns)[sizes > 0] / sizes[sizes > 0]
        return {"acc1": float(correct.mean()), "mean_per_class_recall": float(by_class.mean())}

    @property
    def columns(self) -> int:
        """Classes."""
        return len(self.tokens) // self.per_class


@dataclass(frozen=True)
class RetrievalTask(PictureTask):
    """Each picture has captions: ``owners`` (m,), the picture of each text."""

    owners: Tensor = field(kw_only=True)
    metric: str = "mean_recall@1"

    def cosines(self, images: Tensor, texts: Tensor) -> Tensor:
        """Of pictures with captions."""
        return images @ texts.T

    def questions(self, cosines: Tensor) -> list[Questions]:
        """Each picture for its captions, each caption for its picture."""
        owners, n = self.owners.to(cosines.device), len(cosines)
        right = owners[None] == torch.arange(n, device=cosines.device)[:, None]
        share = torch.full((n,), 1 / n, dtype=torch.float64, device=cosines.device)
        by_caption = (share / right.sum(1))[owners]
        return [Questions(cosines, right, share), Questions(cosines.T, right.T, by_caption)]

    def correct(self, cosines: Tensor) -> Tensor:
        """Whether the nearest caption is one of the own."""
        return self.owners.to(cosines.device)[cosines.argmax(1)] == torch.arange(len(cosines), device=cosines.device)

    def measures(self, cosines: Tensor) -> dict[str, float]:
        """Recall at 1, the mean of both directions, and that of pictures."""
        of_pictures = super().measures(cosines)
        of_captions = (cosines.argmax(0).cpu() == self.owners.cpu()).double().mean()
        return {**of_pictures, self.metric: float(0.5 * (of_pictures["acc1"] + of_captions))}

    @property
    def columns(self) -> int:
        """Captions."""
        return len(self.tokens)


@dataclass(frozen=True)
class LabelsTask(PictureTask):
    """Each picture may be of several classes: ``truth`` (n, classes), bool; classes as in `ClassTask`. Classes of no
    picture, or of all, ask nothing."""

    truth: Tensor = field(kw_only=True)
    per_class: int = field(default=1, kw_only=True)
    metric: str = "mean_average_precision"

    def cosines(self, images: Tensor, texts: Tensor) -> Tensor:
        """Of pictures with classes."""
        return images @ unit_rows(texts.view(self.columns, self.per_class, -1).mean(1)).T

    def questions(self, cosines: Tensor) -> list[Questions]:
        """Each class for its pictures."""
        truth = self.truth.to(cosines.device)
        asked = truth.any(0) & ~truth.all(0)
        weights = torch.full((int(asked.sum()),), 1 / int(asked.sum()), dtype=torch.float64, device=cosines.device)
        return [Questions(cosines.T[asked], truth.T[asked], weights)]

    def correct(self, cosines: Tensor) -> Tensor:
        """Whether the nearest class is one of the own."""
        return self.truth.to(cosines.device).gather(1, cosines.argmax(1, keepdim=True)).squeeze(1)

    def measures(self, cosines: Tensor) -> dict[str, float]:
        """Mean average precision over the classes that have pictures, and the share of right nearest classes."""
        truth = self.truth.cpu().T
        order = torch.sort(cosines.cpu().T, dim=1, descending=True, stable=True)[1]
        found = truth.gather(1, order).double()
        precision = found.cumsum(1) / torch.arange(1, found.shape[1] + 1)
        each = ((precision * found).sum(1) / found.sum(1).clamp(min=1))[truth.any(1)]
        return {**super().measures(cosines), self.metric: float(each.mean())}

    @property
    def columns(self) -> int:
        """Classes."""
        return len(self.tokens) // self.per_class
