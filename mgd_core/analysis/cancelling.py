"""Gradient cancelling: poisons that make given parameters a stationary point of training (a baseline).

Lu, Kamath & Yu 2023 (arXiv 2303.03592): choose target parameters w* that do badly, then inputs (and labels) such that
the gradient of the poisoned training loss at w* vanishes. w* comes from gradient-based parameter corruption (Sun et al.
2020, arXiv 2006.05620): steps of gradient ascent on the loss from the clean model, within a share of its norm. No
training run is differentiated: the attack knows the loss, but neither the data order nor the optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.engine.metaparameters import Inputs
from mgd_core.engine.replay import Target

ASCENT = 10  # steps of the corruption


def corrupted(theta: Tensor, target: Target, budget: float) -> Tensor:
    """Parameters (P,) at most ``budget`` |theta| from ``theta`` where the target loss is high."""
    radius, at = budget * theta.norm(), theta.clone()
    for _ in range(ASCENT):
        _, g = target(at)
        at = at + radius / ASCENT * g / g.norm().clamp(min=1e-12)
    return at


def cancelled(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    clean: Rows,
    kinds: Sequence[Inputs],
    start: Sequence[Tensor],
    steps: int,
    rate: float = 0.05,
) -> list[Tensor]:
    """Poisons whose summed gradient at ``theta`` cancels that of the rows ``clean``, one tensor for each of ``kinds``.

    ``start``: the poisons' columns as they are. Adam (Kingma & Ba 2015) on |grad_clean + grad_poison|^2, projected.
    """
    kept = _gradient(objective, layout, theta, clean, graph=False)
    z = [x.clone() for x in start]
    slopes, squares = [torch.zeros_like(x) for x in z], [torch.zeros_like(x) for x in z]
    for t in range(1, steps + 1):
        z = [x.detach().requires_grad_(True) for x in z]
        residual = (kept + _gradient(objective, layout, theta, tuple(z), graph=True)).square().sum()
        for i, g in enumerate(torch.autograd.grad(residual, z)):
            slopes[i] = 0.9 * slopes[i] + 0.1 * g
            squares[i] = 0.999 * squares[i] + 0.001 * g.square()
            move = slopes[i] / (1 - 0.9**t) / ((squares[i] / (1 - 0.999**t)).sqrt() + 1e-12)
            z[i] = kinds[i].projected(z[i].detach() - rate * move)
    return [x.detach() for x in z]


def _gradient(objective: Objective, layout: ParameterLayout, theta: Tensor, rows: Rows, graph: bool) -> Tensor:
    """Gradient (P,) of the summed losses."""
    theta = theta.detach().requires_grad_(True)
    with torch.enable_grad():
        params = layout.unflatten(theta)
        total = objective.losses(params, objective.encode(params, rows)).sum()
        return torch.autograd.grad(total, theta, create_graph=graph)[0]
