"""How sure a ratio of two losses of accuracy on the same test pictures is."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt

import numpy as np

ONE_SIDED = 1.6449  # 95 % of a normal distribution lie below


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
