"""Probing candidates: g_i = <gamma_k, grad l_i(theta_k)>, the derivative of phi with respect to adding eps l_i at step k.

One forward-mode pass per batch of candidates, no backward and no per-example gradients (Engstrom et al. 2025, arXiv
2503.13751, Algorithm 1, with weights z entering at step k and z = 0). A contrastive loss needs negatives: a candidate's
are the other rows of its probe batch, so the composition of probe batches is part of the definition of g_i.
"""

from __future__ import annotations

from torch import Tensor

from mgd_core.derivatives import example_tangents
from mgd_core.layout import ParameterLayout
from mgd_core.objective import Objective, Rows
from mgd_core.replay import ProbePoint


def probe(
    objective: Objective, layout: ParameterLayout, point: ProbePoint, rows: Rows, chunk: int | None = None
) -> Tensor:
    """Metagradients (n,) of the candidates ``rows``: negative where more of the candidate lowers the target loss."""
    _, tangents = example_tangents(objective, layout, point.theta, point.gamma, rows, chunk)
    return tangents
