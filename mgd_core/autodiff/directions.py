"""Curvature products along many directions at once: H v_q and d<v_q, grad L>/dw of Q directions, by double backward.

The graph of the gradient is made once, and every direction is one more pass through it: 3 + 6 Q matrix products where
Q single products of mgd_core.autodiff.derivatives take 8 Q. That is all there is to save where arithmetic is the cost.
Where it is the launch of small kernels, the Q passes run as one (``torch.autograd.grad(is_grads_batched=True)``, which
maps the backward over a leading axis), and 16 directions cost about three times one.

With chunks, the tangents of a chunk's features come from differentiating v -> J^T u, which is linear, by its dummy
cotangent u; ``losses`` couples all features; and a second pass pulls the cotangents of features and tangents back:
6 + 8 Q products. Memory: the twofold graph of one chunk, and ``together`` times its activations.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from mgd_core.autodiff import double_functions
from mgd_core.autodiff.derivatives import (
    CurvatureProduct,
    DualFeatures,
    chunks,
    curvature_product,
    graph_of,
    no_derivative,
    pieces_by,
    with_rows_of,
)
from mgd_core.autodiff.dual_rules import double_rules
from mgd_core.autodiff.layer_rules import or_zero
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Features, Objective, Rows
from mgd_core.errors import UserError
from mgd_core.ranks.ranks import ALONE, Ranks

DOUBLE_BELOW = {"cpu": 1 << 24, "cuda": 1 << 33}
"""Rows x parameters below which even a single direction goes by double backward: 9 products of which each is one kernel
cost less there than 8 that forward mode surrounds with Python."""
TOGETHER_BELOW = {"cpu": 3 << 20, "cuda": 1 << 30}
"""Rows x parameters below which directions run as one. CPU: where a kernel's arithmetic passes its launch, measured on
MLPs (benchmarks/results/queries.md). CUDA: the same ratio for a launch of 5 us at 20 TFLOP/s; not measured."""


Way = Literal["either", "forward", "double"]
"""By which way a curvature product is taken: reverse over forward (mgd_core.autodiff.derivatives), or double backward
(here). ``either``: by the size of the problem. mgd_core.engine.examination says which are exact for an objective."""


class Finding(NamedTuple):
    """How exact an objective is: the way to take, and the coarsest arithmetic that it uses (None: not looked at)."""

    way: Way = "either"
    eps: float | None = None


class OneByOneError(UserError, RuntimeError):
    """The objective has no double backward that can be trusted."""


def curvature(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    v: Tensor,
    rows: Rows,
    weights: Tensor,
    chunk: int | None = None,
    inputs: Sequence[int] = (),
    way: Way = "either",
    ranks: Ranks = ALONE,
) -> CurvatureProduct:
    """Curvature products along ``v``, (P,) or (Q, P), by ``way``, or the faster one for the size of the problem.

    ``inputs``: columns of the rows by which is differentiated as well. Over ranks, where rows are a rank's own, every
    direction is a forward-mode pass; those of models that need double backward are refused before.

    Where double backward is not to be had, directions go one by one through mgd_core.autodiff.derivatives, with a
    warning.
    """

    def one(v: Tensor) -> CurvatureProduct:
        return curvature_product(objective, layout, theta, v, rows, weights, chunk, inputs, ranks)

    if ranks.count > 1:
        way = "forward"
    small = is_small(theta, rows[0].shape[0], chunk)
    if v.ndim == 1 and (way == "forward" or (way == "either" and not small)):
        return one(v)
    directions = v if v.ndim > 1 else v[None]
    if way == "forward":
        product = _stacked([one(x) for x in directions])
    else:
        try:
            product = curvature_products(objective, layout, theta, directions, rows, weights, chunk, inputs=inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if way == "double":
                raise
            warnings.warn(
                f"no double backward, each direction is a forward-mode pass of its own: {error}", stacklevel=2
            )
            product = _stacked([one(x) for x in directions])
    return product if v.ndim > 1 else product.first


def is_small(theta: Tensor, n: int, chunk: int | None) -> bool:
    """Whether double backward is the faster way even for a single direction, for a batch of ``n`` rows."""
    return (chunk is None or chunk >= n) and n * len(theta) <= DOUBLE_BELOW.get(theta.device.type, 0)


def _stacked(single: Sequence[CurvatureProduct]) -> CurvatureProduct:
    h, w, value = (torch.stack(column) for column in zip(*(one[:3] for one in single), strict=True))
    return CurvatureProduct(
        h, w, value, tuple(torch.stack(x) for x in zip(*(one.inputs for one in single), strict=True))
    )


def curvature_products(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    v: Tensor,
    rows: Rows,
    weights: Tensor,
    chunk: int | None = None,
    together: int | None = None,
    inputs: Sequence[int] = (),
) -> CurvatureProduct:
    """H v_q (Q, P), d<v_q, grad L>/dw (Q, n) and <v_q, grad L> (Q,) at (theta, w) for the directions ``v`` (Q, P).

    ``together``: directions that share a pass; None chooses by the size of the problem, never by a clock. ``inputs``:
    columns of the rows by which is differentiated as well.

    Raises:
        OneByOneError: a custom autograd.Function, whose backward may not be differentiable itself, is involved.
        RuntimeError: PyTorch has no second derivative for an operation of the objective.
    """
    pieces, leaves = pieces_by(rows, chunk, inputs)
    together = together or _together(layout.length * pieces[0][0].shape[0], theta.device.type, len(v))
    pull = _Pull(together)
    theta, v = theta.detach().requires_grad_(True), v.detach()
    weights = weights.detach().requires_grad_(True)
    if len(pieces) > 1:
        return _by_pieces(_Along(objective, layout, theta, v), pieces, weights, pull, leaves)
    with torch.enable_grad(), double_rules():
        params = layout.unflatten(theta)
        loss = objective.couple(params, objective.encode(params, pieces[0]), weights)
        (g,) = _gradients((loss,), (theta,))
    if g is None:
        raise no_derivative()
    h, w, *x = pull((g,), (v,), (theta, weights, *leaves))
    return CurvatureProduct(h, w, v @ g.detach(), tuple(x))


class _Along(NamedTuple):
    objective: Objective
    layout: ParameterLayout
    theta: Tensor  # (P,), a leaf
    v: Tensor  # (Q, P)


def _by_pieces(
    along: _Along, pieces: Sequence[Rows], weights: Tensor, pull: _Pull, leaves_in: Sequence[Tensor]
) -> CurvatureProduct:
    objective, layout, theta, v = along
    encoded = (_encode_along(along, piece, pull) for piece in pieces)
    columns = [list(zip(*column, strict=True)) for column in zip(*encoded, strict=True)]
    features = [torch.cat(primal).requires_grad_(True) for primal, _ in columns]
    tangents = [torch.cat(tangent, dim=1) for _, tangent in columns]
    with torch.enable_grad(), double_rules():
        loss = objective.couple(layout.unflatten(theta), tuple(features), weights)
        inputs = (theta, *features)
        g, *slopes = (or_zero(c, x) for c, x in zip(_gradients((loss,), inputs), inputs, strict=True))
    h, w, *bends = pull((g, *slopes), (v, *tangents), (theta, weights, *features))
    slopes = [c.detach() for c in slopes]
    value = v @ g.detach() + sum((d * c).flatten(1).sum(1) for c, d in zip(slopes, tangents, strict=True))
    x = [leaf.new_zeros(len(v), *leaf.shape) for leaf in leaves_in]
    for piece, parts in with_rows_of(pieces, [*slopes, *(c.movedim(0, 1) for c in bends)]):
        with torch.enable_grad(), double_rules():
            outputs = objective.encode(layout.unflatten(theta), piece)
            (slope,) = _gradients(outputs, (theta,), parts[: len(outputs)])
        cotangents = (*(c.movedim(0, 1) for c in parts[len(outputs) :] if c is not None), v)
        by_theta, *by_input = pull((*outputs, or_zero(slope, theta)), cotangents, (theta, *leaves_in))
        h, x = h + by_theta, [a + b for a, b in zip(x, by_input, strict=True)]
    return CurvatureProduct(h, w, value, tuple(x))


def _encode_along(along: _Along, piece: Rows, pull: _Pull) -> list[tuple[Tensor, Tensor]]:
    """Each of the features of ``piece`` (n, ...) and its tangents along ``v`` (Q, n, ...)."""
    objective, layout, theta, v = along
    with torch.enable_grad(), double_rules():
        features = objective.encode(layout.unflatten(theta), piece)
        dummies = [torch.zeros_like(f).requires_grad_(True) for f in features]
        (g,) = _gradients(features, (theta,), dummies)
    tangents = pull((or_zero(g, theta),), (v,), dummies)
    return [(f.detach(), d) for f, d in zip(features, tangents, strict=True)]


def encode_along(
    objective: Objective, layout: ParameterLayout, theta: Tensor, v: Tensor, rows: Rows, chunk: int | None = None
) -> DualFeatures:
    """As :func:`mgd_core.autodiff.derivatives.encode_dual`, by double backward."""
    along = _Along(objective, layout, theta.detach().requires_grad_(True), v.detach()[None])
    pieces = [_encode_along(along, piece, _Pull(1)) for piece in chunks(rows, chunk)]
    columns = [list(zip(*column, strict=True)) for column in zip(*pieces, strict=True)]
    return DualFeatures(
        tuple(torch.cat(primal) for primal, _ in columns), tuple(torch.cat(tangent, dim=1)[0] for _, tangent in columns)
    )


def candidates_along(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    v: Tensor,
    candidates: DualFeatures,
    reference: DualFeatures,
    others: Tensor,
) -> tuple[Tensor, Tensor]:
    """As :func:`mgd_core.autodiff.derivatives.candidate_tangents`, by double backward."""
    moving = theta, *candidates.primal, *reference.primal
    along = v, *candidates.tangent, *reference.tangent
    leaves = [x.detach().requires_grad_(True) for x in moving]
    count = 1 + len(candidates.primal)
    with torch.enable_grad(), double_rules():
        params = layout.unflatten(leaves[0])
        losses = objective.candidate_losses(params, tuple(leaves[1:count]), tuple(leaves[count:]), others)
        dummy = torch.zeros_like(losses).requires_grad_(True)
        slopes = _gradients((losses,), leaves, (dummy,))
        value = sum(((s * d).sum() for s, d in zip(slopes, along, strict=True) if s is not None), dummy.new_zeros(()))
    if not isinstance(value, Tensor) or not value.requires_grad:
        return losses.detach(), torch.zeros_like(losses)
    return losses.detach(), torch.autograd.grad(value, dummy)[0]


def _gradients(
    outputs: Features, inputs: Sequence[Tensor], cotangents: Sequence[Tensor | None] | None = None
) -> tuple[Tensor | None, ...]:
    """VJP with a graph of its own; None for inputs that do not matter."""
    _check_functions(outputs)
    given = [None] * len(outputs) if cotangents is None else cotangents
    used = [(y, c) for y, c in zip(outputs, given, strict=True) if y.requires_grad]
    if not used:
        return (None,) * len(inputs)
    return torch.autograd.grad([y for y, _ in used], inputs, [c for _, c in used], create_graph=True, allow_unused=True)


class _Pull:
    """VJP of Q cotangents through one graph, ``together`` at a time."""

    def __init__(self, together: int) -> None:
        self.together = together

    def __call__(
        self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Cotangents (Q, ...) of ``inputs`` for those of ``outputs``, (Q, ...) too."""
        count = len(cotangents[0])
        pulled = tuple(x.new_zeros(count, *x.shape) for x in inputs)
        used = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
        for start in range(0, count if used else 0, self.together):
            block = slice(start, min(start + self.together, count))
            batched = block.stop - start > 1
            given = [c[block] if batched else c[start] for _, c in used]
            found = torch.autograd.grad(
                [y for y, _ in used], inputs, given, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )
            for whole, part in zip(pulled, found, strict=True):
                if part is not None:
                    whole[block] = part
        return pulled


def _together(work: int, device: str, count: int) -> int:
    return count if work <= TOGETHER_BELOW.get(device, 0) else 1


def _check_functions(outputs: Sequence[Tensor]) -> None:
    """Refuse custom functions: a backward that PyTorch did not record is taken for a constant, without a word."""
    for node in graph_of(outputs):
        if isinstance(node, BackwardCFunction) and node._forward_cls.__module__ != double_functions.__name__:
            raise OneByOneError(
                f"the objective uses {node._forward_cls.__name__}, a custom autograd.Function: whether its backward "
                "can be differentiated cannot be known"
            )
