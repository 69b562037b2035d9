"""The standing check of every reverse step: what was taken is finite, and the two derivatives along gamma are one.

D = <gamma, grad L> comes out of the curvature product, and g out of the training step; so <gamma, g> must be D to
rounding. It is not where a layer's forward mode and gradient differ, where the step was run with other draws, rows or
buffers than now, and where a replayed state is not the first one. What this cannot see (a second derivative that is
wrong over a right first one) is compared before a training, by mgd_core.engine.examination.

The gap is relative to |gamma| |g|. Seen at most, over the trainings of testing.problems with Adam and SGD, in chunks
and not: float64 7e-16, float32 4e-7, bfloat16 under autocast 6e-2: 3 to 8 times the rounding of one number. The bar
is 1000 times it, for larger models, since a false alarm costs a run; in bfloat16 only what is wrong altogether is seen.

Cost: two more passes over P numbers, which is 0.3 to 1 % of a reverse step on seven pictures and less on more; one
transfer from the device where there were two; no result changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mgd_core.autodiff.derivatives import CurvatureProduct
from mgd_core.autodiff.directions import Way
from mgd_core.errors import UserError
from mgd_core.ranks.ranks import Partial, Replicated, Slice
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import State, UpdateCotangents

FINEST, COARSEST, ROUNDINGS = 1e-9, 0.5, 1e3
"""The bar: so many times the rounding of a number, within limits."""
NAMED = 200  # parameters that the search for a layer looks at


class NonFiniteError(UserError, FloatingPointError):
    """A loss, a gradient or a cotangent became NaN or infinite."""


class InexactError(UserError, RuntimeError):
    """A reverse step's derivative is not that of the step that was trained."""


class Taken(NamedTuple):
    """One reverse step, as :func:`mgd_core.engine.reverse.reverse_step` took it."""

    state: State
    after: State
    t: int
    batch: Batch
    g: Tensor
    pulled: UpdateCotangents
    product: CurvatureProduct
    theta: Tensor
    way: Way
    eps: float | None


def check_taken(learner: Learner, taken: Taken) -> None:
    """Compare, and look for NaN, with one transfer from the device.

    Raises:
        NonFiniteError, InexactError: name the step and the parameter or layer.
    """
    gamma, product, t, ranks = taken.pulled.gradient, taken.product, taken.t, learner.ranks
    size, along = ranks.norm(Slice(gamma)), ranks.total(Partial(gamma @ taken.g))
    scale = (size * ranks.norm(Slice(taken.g))).clamp(min=torch.finfo(size.dtype).tiny)
    gap = (product.value - along).abs() / scale
    sums = (size, taken.theta, product.weights, taken.pulled.lr, *product.inputs)
    apart, *found = torch.stack([gap.max(), *(x.sum().to(gap.dtype) for x in sums)]).tolist()
    if not all(-torch.inf < x < torch.inf for x in found):
        check_finite("the cotangent of the gradient", gamma, t, learner.name_at)
        check_finite("the cotangent of the parameters", taken.theta, t, learner.name_at)
        check_finite("the cotangent of the example weights", product.weights, t)
        check_finite("the cotangent of the learning rate", taken.pulled.lr, t)
        for x in product.inputs:
            check_finite("the cotangent of an input", x, t)
    if not apart <= bar_of(taken.state.theta, taken.eps):
        _explain(learner, taken, apart)


def check_finite(what: str, vector: Tensor, step: int, name_at: Callable[[int], str] | None = None) -> None:
    """Stop where ``vector`` (..., P) holds a NaN or an infinity. ``name_at``: the parameter of a position.

    Raises:
        NonFiniteError: names the step, the first parameter concerned and what to do.
    """
    if torch.isfinite(vector.sum()):  # one pass; only a sum that is not finite is worth a look at every element
        return
    bad = ~torch.isfinite(vector)
    if bad.any():
        where = f", first in parameter '{name_at(int(bad.nonzero()[0, -1]))}'" if name_at is not None else ""
        raise NonFiniteError(
            f"{what} became NaN or infinite at step {step}{where} ({int(bad.sum())} of "
            f"{vector.numel()} elements). The training is not metasmooth there: raise eps_root, lower the learning "
            "rate, or begin the window later."
        )


def bar_of(theta: Tensor, eps: float | None) -> float:
    """Gap from which on a step is wrong, for a state like ``theta`` and arithmetic of ``eps``.

    Unknown arithmetic may be coarser than a state of single precision, and is taken to be.
    """
    if eps is None:
        return FINEST if theta.dtype == torch.float64 else COARSEST
    return min(COARSEST, max(FINEST, ROUNDINGS * eps))


def _explain(learner: Learner, taken: Taken, apart: float) -> None:
    """Say where the gap is from, unless it is the rounding of a gradient that was read back from far larger moments."""
    again, g, gamma = (
        learner.whole(x)
        for x in (learner.gradient(taken.state, taken.t, taken.batch)[1], taken.g, taken.pulled.gradient)
    )
    gamma, value = torch.atleast_2d(gamma), torch.atleast_1d(taken.product.value)
    worst = int((value - gamma @ g).abs().argmax())
    v, value = gamma[worst], value[worst]
    bar = bar_of(taken.state.theta, taken.eps)
    told = (
        f"the derivative of step {taken.t} is not exact: along gamma it is {value.item():.6g} by the way that was "
        f"taken and {(v @ g).item():.6g} by the step's own gradient (a gap of {apart:.1e}; rounding makes at "
        f"most {bar:.0e}). "
    )
    if (value - v @ again).abs() <= bar * v.norm() * again.norm():
        shift, moments = (again - g).abs(), [learner.whole(x) for x in taken.after.moments[:1]]
        if moments and shift.norm() <= 1e3 * torch.finfo(shift.dtype).eps * moments[0].norm():
            return
        name = learner.layout.name_at(int(shift.argmax()))
        raise InexactError(
            f"{told}The gradient that the training used is not what its state and batch give now, most in '{name}': "
            "something changed since (chance, rows, a buffer, threads)."
        )
    raise InexactError(
        f"{told}Likely layer: that of parameter '{_layer(learner, taken, v, again)}'. Its forward mode and its "
        "gradient differ, or it draws at random. The metagradient would be wrong; replace the operation."
    )


def _layer(learner: Learner, taken: Taken, v: Tensor, g: Tensor) -> str:
    """The parameter along whose part of ``v`` the two derivatives are furthest apart."""
    layout = learner.layout
    parts = sorted(zip(layout.offsets, layout.offsets[1:], layout.names, strict=False), key=lambda p: p[0] - p[1])
    gaps = {}
    for start, stop, name in parts[:NAMED]:
        part = torch.zeros_like(v)
        part[start:stop] = v[start:stop]
        along = learner.ranks.cut(Replicated(part))
        found = learner.curvature(taken.state, along, taken.batch, way=taken.way)
        gaps[name] = (found.value - part @ g).abs().item()
    return max(gaps, key=lambda name: gaps[name])
