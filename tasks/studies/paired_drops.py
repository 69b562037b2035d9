"""Accuracy lost between two models on the same test pictures, and how sure a ratio of two such losses is.

Pictures are paired with themselves: what two models have both right, or both wrong, adds no variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import NamedTuple

import numpy as np

ONE_SIDED = 1.6449  # 95 % of a normal distribution lie below


class Drop(NamedTuple):
    """Accuracy lost, 0 to 1, and its standard error over the test pictures."""

    mean: float
    error: float


def paired_drop(before: Sequence[float], after: Sequence[float]) -> Drop:
    """From answers ``before`` to ``after``, (n,) of 1 for right and 0 for wrong, on the same pictures in one order; or
    means of them over several trainings, whose pictures stay paired."""
    lost = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    return Drop(float(lost.mean()), float(lost.std() / sqrt(len(lost))))


def least_ratio(before: Sequence[float], after: Sequence[float], rival: Sequence[float], z: float = ONE_SIDED) -> float:
    """The least r >= 0 for which "the drop to ``after`` is r times that to ``rival``" stands, one-sided at 95 %.

    Fieller's bound (1954): mean(a - r b) = z times its standard error, with a and b the two losses of each picture. It
    holds where the rival's drop is zero or negative too: infinite if none stands.
    """
    lost = np.asarray(before, np.float64) - np.array([after, rival], np.float64)
    a, b = lost.mean(1)
    (va, c), (_, vb) = np.cov(lost, bias=True) / lost.shape[1]
    if a <= z * sqrt(va):
        return 0.0
    roots = np.roots([b**2 - z**2 * vb, -2 * (a * b - z**2 * c), a**2 - z**2 * va])
    positive = [float(root.real) for root in roots if abs(root.imag) < 1e-12 and root.real > 0]
    return min(positive, default=inf)
