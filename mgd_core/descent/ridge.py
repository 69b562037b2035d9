"""Ridge regression in closed form, from sums that are taken a stretch of the data at a time.

    beta = argmin sum_i w_i (y_i - a - z_i beta)^2 / sum_i w_i + penalty ||beta||^2,    z = (x - mean) / scale,

x (f,) the features of a sample, standardised by the mean and scale of the fitted samples. Everything it needs of the
data are the moments of (1, x, y): (f + 2)^2 numbers, however many samples there are. Moments add and subtract, so a
model that has not seen some of the samples is one subtraction away from that of all (`crossed`).

The penalty is the one of the least generalised cross-validation error (Golub, Heath & Wahba 1979): the fitted samples
choose it, and no others. All penalties share one eigendecomposition, O(f^3). Everything is float64 and on torch's
threads: equal stretches give equal bits under one setting of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-8, 9))
"""Tried penalties, as shares of a standardised feature's variance; beyond the last, nothing is predicted at all."""
MOST_FITTED = 0.9
"""Degrees of freedom that a fit may take of its samples: beyond, the generalised error divides by next to nothing."""
CONSTANT = 1e-10
"""A feature whose variance is no larger than this share of its mean square is constant, to rounding."""


@dataclass(frozen=True)
class Moments:
    """Weighted sums over ``samples`` samples: ``table`` (f + 2, f + 2), of the products of (1, x, y) with itself."""

    table: Tensor
    samples: int = 0

    @classmethod
    def none(cls, features: int) -> Moments:
        """Of no samples."""
        return cls(torch.zeros(features + 2, features + 2, dtype=torch.float64))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.table + other.table, self.samples + other.samples)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.table - other.table, self.samples - other.samples)

    def with_samples(self, x: Tensor, y: Tensor, weight: Tensor) -> Moments:
        """With x (m, f), y (m,) and weights (m,) besides."""
        rows = torch.cat([torch.ones(len(x), 1, dtype=torch.float64), x.double(), y.double()[:, None]], dim=1)
        return Moments(self.table + rows.T @ (weight.double()[:, None] * rows), self.samples + len(x))


@dataclass(frozen=True)
class Ridge:
    """A fitted model: ``mean`` and ``scale`` (f,) of the features (scale 1 where one is constant), ``weights`` (f,) of
    the standardised ones, and the ``level`` that is predicted at their mean; by which ``penalty``."""

    mean: Tensor
    scale: Tensor
    weights: Tensor
    level: float
    penalty: float

    def __call__(self, x: Tensor) -> Tensor:
        """Predictions (m,) of features (m, f), float64."""
        return self.level + ((x.double() - self.mean) / self.scale) @ self.weights


def fitted(moments: Moments) -> Ridge:
    """The model of the samples of which these are the moments; the mean of y alone where nothing else can be told."""
    f, total = len(moments.table) - 2, moments.table[0, 0]
    if total <= 0:
        return Ridge(torch.zeros(f).double(), torch.ones(f).double(), torch.zeros(f).double(), 0.0, float("inf"))
    table = moments.table / total
    centre = table[0]
    spread = table - centre[:, None] * centre[None]
    varies = spread.diagonal() > CONSTANT * table.diagonal()
    scale = torch.where(varies, spread.diagonal().clamp(min=0).sqrt(), 1.0)[1:-1]
    varied = varies[1:-1].double() / scale  # constant features have no weight
    correlations = varied[:, None] * spread[1:-1, 1:-1] * varied[None]
    values, vectors = torch.linalg.eigh(correlations)
    values = values.clamp(min=0)
    along, variance = vectors.T @ (varied * spread[1:-1, -1]), spread[-1, -1].clamp(min=0)
    best, chosen = float(variance) / (1 - 1 / max(moments.samples, 2)) ** 2, float("inf")
    for penalty in PENALTIES:
        free = float((values / (values + penalty)).sum() + 1) / moments.samples
        left = float(variance - (along**2 * (values + 2 * penalty) / (values + penalty) ** 2).sum())
        if free <= MOST_FITTED and max(left, 0.0) / (1 - free) ** 2 < best:
            best, chosen = max(left, 0.0) / (1 - free) ** 2, penalty
    weights = vectors @ (along / (values + chosen))
    return Ridge(centre[1:-1], scale, weights, float(centre[-1]), chosen)


def crossed(folds: Sequence[Moments]) -> list[Ridge]:
    """Of each fold of the samples, the model of all others."""
    every = sum(folds[1:], folds[0])
    return [fitted(every - one) for one in folds]
