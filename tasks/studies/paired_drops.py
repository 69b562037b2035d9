"""Accuracy lost between two models on the same test pictures.

Pictures are paired with themselves: what two models have both right, or both wrong, adds no variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np


class Drop(NamedTuple):
    """Accuracy lost, 0 to 1, and its standard error over the test pictures."""

    mean: float
    error: float


def paired_drop(before: Sequence[float], after: Sequence[float]) -> Drop:
    """From answers ``before`` to ``after``, (n,) of 1 for right and 0 for wrong, on the same pictures in one order; or
    means of them over several trainings, whose pictures stay paired."""
    lost = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    return Drop(float(lost.mean()), float(lost.std() / sqrt(len(lost))))
