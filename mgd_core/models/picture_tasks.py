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
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgd_core.autodiff.objective import log_sum_exp, unit_rows
from mgd_core.models.zeroshot import least_scale


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
    """Pictures (n, 3, H, W) uint8 and texts as tokens (m, L); ``right`` (n, c) bool: what each picture is, of the c
    things that it may be, each the mean of its ``per_column`` texts, renormalised."""

    images: Tensor
    tokens: Tensor
    right: Tensor
    metric: str = "acc1"
    per_column: int = 1

    @abstractmethod
    def questions(self, cosines: Tensor) -> list[Questions]:
        """What is asked, by the cosines (n, c) of pictures with what they may be; the loss is the mean over what is
        returned."""

    @abstractmethod
    def measures(self, cosines: Tensor) -> dict[str, float]:
        """All that is measured beside the loss, by metric, ``metric`` and ``acc1`` among them."""

    def heads(self, texts: Tensor) -> Tensor:
        """Unit features (c, d) of what a picture may be, from those of the texts (m, d)."""
        return unit_rows(texts.view(self.right.shape[1], self.per_column, -1).mean(1))

    def correct(self, cosines: Tensor) -> Tensor:
        """Whether the nearest of each picture (n,) is right, bool."""
        return self.right.to(cosines.device).gather(1, cosines.argmax(1, keepdim=True)).squeeze(1)

    def loss(self, cosines: Tensor, scale: Tensor | float) -> Tensor:
        """At an inverse temperature, nats."""
        return torch.stack([each.loss(scale) for each in self.questions(cosines)]).mean()

    def best_scale(self, cosines: Tensor, iterations: int = 60) -> float:
        """The inverse temperature in [1e-3, 1e3] that minimises the loss."""
        questions = self.questions(cosines.detach())
        return least_scale(lambda scale: sum(each.slope(scale) for each in questions), iterations)

    @property
    def chance(self) -> float:
        """The loss where nothing is known, nats."""
        questions = self.questions(torch.zeros(()).expand(self.right.shape))
        wrong = [(each.weights * (~each.right).sum(1).double().log1p()).sum() for each in questions]
        return torch.stack(wrong).mean().item()


class ClassTask(PictureTask):
    """Each picture is of one class. With the metric ``mean_per_class_recall`` classes weigh the same, else pictures."""

    @staticmethod
    def of(images: Tensor, tokens: Tensor, labels: Tensor, per_class: int = 1, metric: str = "acc1") -> ClassTask:
        """From ``labels`` (n,), and ``per_class`` texts of each class in a row."""
        right = labels[:, None] == torch.arange(len(tokens) // per_class)
        return ClassTask(images, tokens, right, metric, per_class)

    def questions(self, cosines: Tensor) -> list[Questions]:
        """Each picture for its class."""
        right = self.right.to(cosines.device)
        weights = torch.full((len(right),), 1 / len(right), dtype=torch.float64, device=cosines.device)
        if self.metric == "mean_per_class_recall":
            sizes = right.sum(0)
            weights = 1 / (right.double() @ sizes.double()) / (sizes > 0).sum()
        return [Questions(cosines, right, weights)]

    def measures(self, cosines: Tensor) -> dict[str, float]:
        """Accuracy over pictures and over classes."""
        correct, right = self.correct(cosines).double().cpu(), self.right.cpu().double()
        of_classes = (correct @ right / right.sum(0))[right.any(0)]
        return {"acc1": float(correct.mean()), "mean_per_class_recall": float(of_classes.mean())}


class RetrievalTask(PictureTask):
    """Each picture has captions, all of them columns."""

    @staticmethod
    def of(images: Tensor, tokens: Tensor, owners: Tensor) -> RetrievalTask:
        """From ``owners`` (m,), the picture of each text."""
        right = owners[None] == torch.arange(len(images))[:, None]
        return RetrievalTask(images, tokens, right, "mean_recall@1")

    def questions(self, cosines: Tensor) -> list[Questions]:
        """Each picture for its captions, each caption for its picture."""
        right = self.right.to(cosines.device)
        share = torch.full((len(right),), 1 / len(right), dtype=torch.float64, device=cosines.device)
        by_caption = (share / right.sum(1)) @ right.double()
        return [Questions(cosines, right, share), Questions(cosines.T, right.T, by_caption)]

    def measures(self, cosines: Tensor) -> dict[str, float]:
        """Recall at 1, the mean of both directions, and that of pictures."""
        of_pictures = float(self.correct(cosines).double().mean())
        nearest = cosines.argmax(0, keepdim=True)
        of_captions = float(self.right.to(cosines.device).gather(0, nearest).double().mean())
        return {"acc1": of_pictures, self.metric: 0.5 * (of_pictures + of_captions)}


class LabelsTask(PictureTask):
    """Each picture may be of several classes. Classes of no picture, or of all, ask nothing."""

    @staticmethod
    def of(images: Tensor, tokens: Tensor, truth: Tensor, per_class: int = 1) -> LabelsTask:
        """From ``truth`` (n, classes), bool, and ``per_class`` texts of each class in a row."""
        return LabelsTask(images, tokens, truth, "mean_average_precision", per_class)

    def questions(self, cosines: Tensor) -> list[Questions]:
        """Each class for its pictures."""
        truth = self.right.to(cosines.device)
        asked = truth.any(0) & ~truth.all(0)
        weights = torch.full((int(asked.sum()),), 1 / int(asked.sum()), dtype=torch.float64, device=cosines.device)
        return [Questions(cosines.T[asked], truth.T[asked], weights)]

    def measures(self, cosines: Tensor) -> dict[str, float]:
        """Mean average precision over the classes that have pictures, and the share of right nearest classes."""
        truth = self.right.cpu().T
        order = torch.sort(cosines.cpu().T, dim=1, descending=True, stable=True)[1]
        found = truth.gather(1, order).double()
        precision = found.cumsum(1) / torch.arange(1, found.shape[1] + 1)
        each = ((precision * found).sum(1) / found.sum(1).clamp(min=1))[truth.any(1)]
        return {"acc1": float(self.correct(cosines).double().mean()), self.metric: float(each.mean())}
