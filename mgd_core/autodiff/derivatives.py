"""The three derivatives of a coupled loss that the engine needs, each written once over (encode, losses).

* gradient: reverse mode, for a training step;
* candidate tangents: forward mode, <v, grad l_i> for every candidate: a probe (no backward at all);
* curvature product: reverse over forward. D(theta, w) = <v, grad_theta L> is a forward-mode scalar, and one reverse
  pass over it gives H v and dD/dw together. There is no double backward: 8 matrix products where a training step has 3.
  (Many directions at once, and problems so small that arithmetic is not the cost: mgd_core.autodiff.directions.)

With ``chunk`` rows at a time, pass 1 encodes all chunks without a graph, ``losses`` couples all features, and pass 2
encodes each chunk again and pulls the features' cotangents back; a chunk without any (rows of weight zero whose losses
do not couple) is left out. One chunk needs no second pass. The result depends on the chunk size by rounding only.
Memory: one chunk's graph, and the features of the batch.

Rows are spread over ranks in the same way (mgd_core.ranks): ``rows`` and ``weights`` are then a rank's own, features
and weights are gathered before ``losses``, and what comes out is partial by theta and a rank's own by rows. A rank
whose rows are one chunk keeps its graph, and has no second pass.

The reverse pass runs after the dual level is left: inside it, every saved tensor still carries its tangent, and the
backward would compute second-order tangents that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as fwd
from torch import Tensor
from torch.autograd.graph import Node

from mgd_core.autodiff.dual_rules import dual_rules, plain_rules
from mgd_core.autodiff.layer_rules import or_zero
from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Features, Objective, Rows
from mgd_core.autodiff.refusals import RefusedModel
from mgd_core.ranks.ranks import ALONE, OwnRows, Ranks, Replicated


class CurvatureProduct(NamedTuple):
    """Derivatives of D = <v, grad_theta L(theta; w)>; with a leading Q for Q directions."""

    theta: Tensor  # H v, (P,) or (Q, P)
    weights: Tensor  # dD/dw, (n,) or (Q, n)
    value: Tensor  # D, scalar or (Q,)
    inputs: tuple[Tensor, ...] = ()  # dD/dx of each column x of the rows that was asked for, (n, ...) or (Q, n, ...)

    @property
    def first(self) -> CurvatureProduct:
        """That of the first of Q directions."""
        return CurvatureProduct(self.theta[0], self.weights[0], self.value[0], tuple(x[0] for x in self.inputs))


def chunks(rows: Rows, size: int | None) -> Iterator[Rows]:
    """Split rows along the first dimension into pieces of at most ``size``."""
    n = rows[0].shape[0]
    size = max(n, 1) if size is None else size
    if size < 1:
        raise ValueError(f"the chunk size must be at least 1, got {size}")
    for start in range(0, n, size):
        yield tuple(x[start : start + size] for x in rows)


def value_and_gradient(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    rows: Rows,
    weights: Tensor,
    chunk: int | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """Batch loss (scalar, replicated) and its gradient (P,), which is partial."""
    pieces = list(chunks(rows, chunk))
    theta = theta.detach().requires_grad_(True)
    if len(pieces) == 1 and ranks.count == 1:
        with torch.enable_grad(), plain_rules():
            params = layout.unflatten(theta)
            loss = objective.couple(params, objective.encode(params, pieces[0]), weights)
            (g,) = torch.autograd.grad(loss, theta)
        return loss.detach(), g

    def encode(piece: Rows) -> Features:
        with torch.enable_grad(), plain_rules():
            return objective.encode(layout.unflatten(theta), piece)

    kept = encode(pieces[0]) if len(pieces) == 1 else None
    features = kept or _encode_without_graph(objective, layout, theta, pieces or [_a_row_like(rows)])
    shares = ranks.shares(len(weights))
    *gathered, weights = ranks.gathered(_own(features, weights), shares)
    leaves = tuple(f.requires_grad_(True) for f in gathered)
    with torch.enable_grad(), plain_rules():
        loss = objective.couple(layout.unflatten(theta), leaves, weights)
        g, *slopes = torch.autograd.grad(loss, (theta, *leaves), allow_unused=True)
    g = or_zero(g if ranks.first else None, theta)
    cotangents = _own_of(ranks, slopes, shares)
    for piece, cotangent in with_rows_of(pieces, cotangents):
        with plain_rules():
            g = g + _pull(encode(piece) if kept is None else kept, cotangent, (theta,))[0]
    return loss.detach(), g


def target_at(layout: ParameterLayout, theta: Tensor, phi: Callable[[Params], Tensor]) -> tuple[Tensor, Tensor]:
    """What ``phi`` makes of parameters, a scalar or (Q,), at ``theta`` (P,), and its gradient (P,) or (Q, P)."""
    theta = theta.detach().requires_grad_(True)
    with torch.enable_grad():
        found = phi(layout.unflatten(theta))
        each = [torch.autograd.grad(one, theta, retain_graph=found.ndim > 0)[0] for one in found.reshape(-1)]
    return found.detach(), torch.stack(each).view(*found.shape, -1)


class DualFeatures(NamedTuple):
    """Features of rows and their directional derivatives along v."""

    primal: Features
    tangent: Features


def encode_dual(
    objective: Objective, layout: ParameterLayout, theta: Tensor, v: Tensor, rows: Rows, chunk: int | None = None
) -> DualFeatures:
    """Features of ``rows`` and their tangents along ``v`` (P,), without a graph, ``chunk`` rows at a time."""
    with torch.no_grad(), fwd.dual_level(), dual_rules():
        params = layout.unflatten(fwd.make_dual(theta.detach(), v.detach()))
        encoded = [[fwd.unpack_dual(f) for f in objective.encode(params, piece)] for piece in chunks(rows, chunk)]
    columns = list(zip(*encoded, strict=True))
    primal = tuple(torch.cat([d.primal for d in column]) for column in columns)
    tangent = tuple(torch.cat([or_zero(d.tangent, d.primal) for d in column]) for column in columns)
    return DualFeatures(primal, tangent)


def candidate_tangents(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    v: Tensor,
    candidates: DualFeatures,
    reference: DualFeatures,
    others: Tensor,
) -> tuple[Tensor, Tensor]:
    """Loss l_i of each candidate joining ``reference``, and <v, grad l_i>: two vectors of shape (n,)."""
    with torch.no_grad(), fwd.dual_level(), dual_rules():
        params = layout.unflatten(fwd.make_dual(theta.detach(), v.detach()))
        ours, theirs = (
            tuple(fwd.make_dual(f, d) for f, d in zip(features.primal, features.tangent, strict=True))
            for features in (candidates, reference)
        )
        losses = fwd.unpack_dual(objective.candidate_losses(params, ours, theirs, others))
    return losses.primal, or_zero(losses.tangent, losses.primal)


def curvature_product(
    objective: Objective,
    layout: ParameterLayout,
    theta: Tensor,
    v: Tensor,
    rows: Rows,
    weights: Tensor,
    chunk: int | None = None,
    inputs: Sequence[int] = (),
    ranks: Ranks = ALONE,
) -> CurvatureProduct:
    """H v and d<v, grad L>/dw at (theta, w), by one reverse pass over a forward-mode derivative.

    ``inputs``: columns of the rows, of floating point, by which D is differentiated as well. Over ranks H v is partial,
    D replicated, and the rest of a rank's own rows.
    """
    pieces, leaves_in = pieces_by(rows, chunk, inputs)
    theta, v = theta.detach().requires_grad_(True), v.detach()
    weights = weights.detach().requires_grad_(True)
    if len(pieces) == 1 and ranks.count == 1:
        with torch.enable_grad(), fwd.dual_level(), dual_rules():
            params = layout.unflatten(fwd.make_dual(theta, v))
            value = _tangent(objective.couple(params, objective.encode(params, pieces[0]), weights))
        h, w, *x = _pull((value,), (torch.ones_like(value),), (theta, weights, *leaves_in))
        return CurvatureProduct(h, w, value.detach(), tuple(x))

    def encode(piece: Rows) -> Features:
        """Features and their tangents, both with their graph."""
        with torch.enable_grad(), fwd.dual_level(), dual_rules():
            params = layout.unflatten(fwd.make_dual(theta, v))
            duals = [fwd.unpack_dual(f) for f in objective.encode(params, piece)]
            return (*(d.primal for d in duals), *(or_zero(d.tangent, d.primal) for d in duals))

    kept = encode(pieces[0]) if len(pieces) == 1 else None
    if kept is None:
        primal, tangent = encode_dual(objective, layout, theta, v, rows if pieces else _a_row_like(rows), chunk)
    shares = ranks.shares(len(weights))
    *gathered, weights = ranks.gathered(_own(kept or (*primal, *tangent), weights), shares)
    leaves = [x.requires_grad_(True) for x in gathered]
    weights, n = weights.requires_grad_(True), len(gathered) // 2
    with torch.enable_grad(), fwd.dual_level(), dual_rules():
        params = layout.unflatten(fwd.make_dual(theta, v))
        features = tuple(fwd.make_dual(f, d) for f, d in zip(leaves[:n], leaves[n:], strict=True))
        value = _tangent(objective.couple(params, features, weights))
    h, w, *slopes = torch.autograd.grad(value, (theta, weights, *leaves), allow_unused=True)
    h, x = or_zero(h if ranks.first else None, theta), [torch.zeros_like(x) for x in leaves_in]
    cotangents = _own_of(ranks, slopes, shares)
    for piece, cotangent in with_rows_of(pieces, cotangents):
        encoded = encode(piece) if kept is None else kept
        by_theta, *by_input = _pull(encoded, cotangent, (theta, *leaves_in))
        h, x = h + by_theta, [a + b for a, b in zip(x, by_input, strict=True)]
    return CurvatureProduct(h, ranks.own(Replicated(w), shares), value.detach(), tuple(x))


def pieces_by(rows: Rows, chunk: int | None, inputs: Sequence[int]) -> tuple[list[Rows], list[Tensor]]:
    """Chunks of ``rows`` that know of the columns ``inputs`` they were cut from, and these columns whole, as leaves.

    Raises:
        RefusedModel: a column is of whole numbers, by which nothing can be differentiated.
    """
    whole = [c for c in inputs if not rows[c].is_floating_point()]
    if whole:
        raise RefusedModel(
            f"columns {whole} of the rows are of {', '.join(str(rows[c].dtype) for c in whole)}: only inputs of "
            "floating point have a gradient. Hand over pixels as floats and labels as probabilities."
        )
    leaves = {c: rows[c].detach().requires_grad_(True) for c in inputs}
    with torch.enable_grad():
        return list(chunks(tuple(leaves.get(c, x) for c, x in enumerate(rows)), chunk)), list(leaves.values())


def _encode_without_graph(objective: Objective, layout: ParameterLayout, theta: Tensor, pieces: list[Rows]) -> Features:
    with torch.no_grad(), plain_rules():
        params = layout.unflatten(theta)
        encoded = [objective.encode(params, piece) for piece in pieces]
    return tuple(torch.cat(parts) for parts in zip(*encoded, strict=True))


def _a_row_like(rows: Rows) -> Rows:
    """A row of zeros: features of a rank that has no row, which are cut off again, say their shape by it."""
    return tuple(x.new_zeros(1, *x.shape[1:]) for x in rows)


def _own(features: Features, weights: Tensor) -> list[OwnRows]:
    """What a rank sends of its rows: no graph, and no row that it has not."""
    return [OwnRows(x.detach()[: len(weights)]) for x in (*features, weights)]


def _own_of(ranks: Ranks, slopes: Sequence[Tensor | None], shares: Sequence[int]) -> list[Tensor | None]:
    """A rank's rows of the cotangents of a batch's features."""
    return [None if x is None else ranks.own(Replicated(x), shares) for x in slopes]


def with_rows_of(
    pieces: Sequence[Rows], cotangents: Sequence[Tensor | None]
) -> Iterator[tuple[Rows, tuple[Tensor | None, ...]]]:
    """Pair each piece with its rows of the cotangents (n, ...); pieces for which all of those are zero are left out."""
    given = [c for c in cotangents if c is not None]
    if not given:
        return
    live = torch.stack([(c != 0).flatten(1).any(1) if c.ndim > 1 else c != 0 for c in given]).any(0).tolist()
    start = 0
    for piece in pieces:
        stop = start + piece[0].shape[0]
        if any(live[start:stop]):
            yield piece, tuple(None if c is None else c[start:stop] for c in cotangents)
        start = stop


def _pull(
    outputs: tuple[Tensor, ...], cotangents: tuple[Tensor | None, ...], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """VJP that skips outputs without a cotangent or without a graph."""
    used = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if c is not None and o.requires_grad]
    pulled = torch.autograd.grad([o for o, _ in used], inputs, [c for _, c in used], allow_unused=True)
    return tuple(or_zero(p, x) for p, x in zip(pulled, inputs, strict=True))


def _tangent(dual: Tensor) -> Tensor:
    """Tangent of a loss that must depend on the parameters."""
    tangent = fwd.unpack_dual(dual).tangent
    if tangent is None:
        raise no_derivative()
    return tangent


def no_derivative() -> RefusedModel:
    """The error of a loss that the parameters do not move."""
    return RefusedModel(
        "the loss has no derivative by the parameters: it does not depend on them, or an operation in encode or losses "
        "cuts the derivative (detach, .data, a custom autograd.Function without jvp)"
    )


def graph_of(outputs: Iterable[Tensor]) -> Iterator[Node]:
    """All nodes of the graph that made ``outputs``."""
    waiting = [y.grad_fn for y in outputs if y.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        fresh = {parent for parent, _ in node.next_functions if parent is not None} - seen
        seen |= fresh
        waiting += fresh
