"""Derivatives as PyTorch has them, with no rule of the engine's: what its own two ways are compared with.

``plain_product`` differentiates twice by double backward. Where PyTorch has no such derivative, or the graph holds a
custom autograd.Function whose backward may be a constant to it, central differences of the gradient along v serve: they
know only the first derivative, which is what a training follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgd_core.autodiff.derivatives import CurvatureProduct, graph_of, pieces_by
from mgd_core.autodiff.layer_rules import or_zero
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Objective, Rows

TINY = 1e-3
"""Of a whole derivative: parts smaller than this are compared with the whole."""


@dataclass(frozen=True)
class Slopes:
    """A derivative by parameters (P,), and by other things; ``scales``: what is small beside each of them."""

    theta: Tensor
    others: tuple[Tensor, ...] = ()
    scales: tuple[float, ...] = (0.0,)

    @classmethod
    def of_gradient(cls, g: Tensor) -> Slopes:
        """A gradient (P,)."""
        return cls(g)

    @classmethod
    def of_product(cls, product: CurvatureProduct, scales: tuple[float, ...]) -> Slopes:
        """A curvature product along one direction."""
        return cls(product.theta, (product.weights, *product.inputs), scales)


@dataclass(frozen=True)
class Reference:
    """The right answer, and how far another may be from it."""

    gradient: Tensor
    slopes: Slopes
    scale: tuple[float, ...]
    exact: bool  # by double backward

    @property
    def by(self) -> str:
        """What it was computed by, in words."""
        return "PyTorch's double backward" if self.exact else "central differences"

    def bar(self, eps: float) -> float:
        """Relative difference from which on an answer is wrong in arithmetic with this ``eps``."""
        return min(0.3, (100 if self.exact else 1e5 if eps < 1e-10 else 300) * eps**0.5)


def plain_product(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    v: Tensor,
    rows: Rows,
    weights: Tensor,
    inputs: Sequence[int],
) -> Reference | None:
    """H v and its companions at ``theta`` (P,) along ``v``; None where loss or gradient are not finite themselves."""

    def first(at: Tensor, twice: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        (piece,), leaves = pieces_by(rows, None, inputs)
        moving = [at.detach().requires_grad_(True), weights.detach().requires_grad_(True), *leaves]
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            params = layout.unflatten(moving[0])
            loss = objective.couple(params, objective.encode(params, piece), moving[1])
            slopes = torch.autograd.grad(loss, moving, create_graph=twice, allow_unused=True)
        return loss, moving, [or_zero(s, x) for s, x in zip(slopes, moving, strict=True)]

    loss, _, slopes = first(theta, twice=False)
    if not _finite([loss, *slopes]):
        return None
    scales = tuple(x.norm().item() for x in slopes)
    custom = any(isinstance(node, BackwardCFunction) for node in graph_of([loss]))
    found = None if custom else _twice(first, theta, v)
    exact = found is not None and _finite(found)
    if not exact:
        step = 1e-4 if theta.dtype == torch.float64 else 1e-2
        ahead, behind = (first(theta + h * v, twice=False)[2] for h in (step, -step))
        found = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
    assert found is not None
    return Reference(slopes[0], Slopes(found[0], tuple(found[1:]), scales), scales, exact)


def _twice(first: object, theta: Tensor, v: Tensor) -> list[Tensor] | None:
    try:
        _, moving, slopes = first(theta, twice=True)  # type: ignore[operator]
        value = (slopes[0] * v).sum()
        if not value.requires_grad:
            return [torch.zeros_like(x) for x in moving]
        found = torch.autograd.grad(value, moving, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
    return [or_zero(s, x) for s, x in zip(found, moving, strict=True)]


def plain_tangents(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    v: Tensor,
    rows: Rows,
    others: Tensor,
    cotangent: Tensor,
) -> tuple[Tensor, float]:
    """<v, grad <cotangent, l>> of the losses l that ``rows`` have as candidates among themselves, and |v| |grad|."""
    theta = theta.detach().requires_grad_(True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        params = layout.unflatten(theta)
        features = objective.encode(params, rows)
        losses = objective.candidate_losses(params, features, features, others)
        (g,) = torch.autograd.grad((cotangent * losses).sum(), theta, allow_unused=True)
    g = or_zero(g, theta)
    return v @ g, (v.norm() * g.norm()).item()


def worst_gap(found: Slopes, expected: Slopes, layout: ParameterLayout) -> tuple[float, str]:
    """The largest relative difference, part by part, and the name of its part."""
    whole = TINY * (expected.theta.norm() + expected.scales[0])
    split = zip(layout.names, *((x.split(layout.sizes)) for x in (found.theta, expected.theta)), strict=True)
    parts = {name: ((a - b).norm(), b.norm() + whole) for name, a, b in split}
    names = ["weights of the rows", *(f"column {i} of those asked for" for i in range(len(found.others)))]
    for name, a, b, scale in zip(names, found.others, expected.others, expected.scales[1:], strict=False):
        parts[name] = (a - b).norm(), b.norm() + TINY * scale
    gaps = torch.stack([apart / size.clamp(min=1e-30) for apart, size in parts.values()])
    at = int(gaps.nan_to_num(nan=torch.inf).argmax())
    return float(gaps[at]), list(parts)[at]


def _finite(tensors: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in tensors)
