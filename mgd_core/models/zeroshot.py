"""Zero-shot classification as a target: its loss, the exact gradient, accuracy, and the temperature it is measured at.

A class is the mean of its templates' text features, renormalised. The loss is cross-entropy at an inverse temperature:
the model's own learned one measures over-confidence more than skill (rounds can lower that loss without touching
accuracy), so the default is the one that minimises the loss. The minimum lies inside phi, and by the envelope theorem
its gradient is the one at fixed temperature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mgd_core.autodiff.derivatives import target_at
from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import cross_entropy, unit_rows
from mgd_core.models.clip import ClipObjective

Temperature = Literal["best", "model"] | float


class ZeroShotScore(NamedTuple):
    """Loss (nats), accuracy (share) and the inverse temperature used."""

    loss: float
    accuracy: float
    scale: float


@dataclass(frozen=True)
class ZeroShotTask:
    """Images (n, 3, H, W) uint8, labels (n,), and class texts: tokens (classes, templates, L)."""

    objective: ClipObjective
    layout: ParameterLayout
    images: Tensor
    labels: Tensor
    class_tokens: Tensor
    temperature: Temperature = "best"

    def class_features(self, params: Params) -> Tensor:
        """Unit class vectors (classes, d)."""
        classes, templates, length = self.class_tokens.shape
        text = self.objective.encode_texts(params, self.class_tokens.reshape(classes * templates, length))
        return unit_rows(text.view(classes, templates, -1).mean(1))

    def cosines(self, params: Params) -> Tensor:
        """Cosine of every image with every class, (n, classes)."""
        return self.objective.encode_images(params, self.images) @ self.class_features(params).T

    def target(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """phi(theta) and its gradient (P,)."""
        return target_at(self.layout, theta, lambda params: self._loss(params, self.cosines(params))[0])

    @torch.no_grad()
    def score(self, theta: Tensor) -> ZeroShotScore:
        """Loss and top-1 accuracy."""
        params = self.layout.unflatten(theta)
        cosines = self.cosines(params)
        loss, scale = self._loss(params, cosines)
        accuracy = (cosines.argmax(1) == self.labels).double().mean()
        return ZeroShotScore(loss.item(), accuracy.item(), torch.as_tensor(scale).item())

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """The score by the names of a table."""
        found = self.score(theta)
        return {"acc1": found.accuracy, "loss": found.loss}

    @torch.no_grad()
    def correct(self, theta: Tensor) -> Tensor:
        """Whether the nearest class of each image is its own (n,), bool."""
        return self.cosines(self.layout.unflatten(theta)).argmax(1) == self.labels

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.labels)

    def _loss(self, params: Params, cosines: Tensor) -> tuple[Tensor, Tensor | float]:
        """Mean cross-entropy, and the inverse temperature it is measured at."""
        if self.temperature == "best":
            scale: Tensor | float = best_scale(cosines.detach(), self.labels)
        else:
            scale = self.objective.scale(params) if self.temperature == "model" else 1.0 / float(self.temperature)
        return cross_entropy(scale * cosines, self.labels).mean(), scale


def best_scale(cosines: Tensor, labels: Tensor, iterations: int = 60) -> float:
    """The inverse temperature in [1e-3, 1e3] that minimises cross-entropy: a convex problem in one variable.

    Bisection on the derivative, E_p[cos] - cos_label averaged over images, in float64 (deterministic, no step size).
    """
    cos = cosines.double()
    own = cos.gather(1, labels[:, None]).squeeze(1)
    return least_scale(lambda s: float(((torch.softmax(s * cos, 1) * cos).sum(1) - own).mean()), iterations)


def least_scale(slope: Callable[[float], float], iterations: int = 60) -> float:
    """Where in [1e-3, 1e3] a convex function of the inverse temperature is least, by bisection on its ``slope``."""
    low, high = 1e-3, 1e3
    for _ in range(iterations):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low * high) ** 0.5
