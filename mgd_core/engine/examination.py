"""Before a training: may its model be differentiated exactly, and by which way?

A model is run on a few rows of a batch, once, before the first step. Refused, with the layer where it can be known, is
one that draws at random (a replayed step would differ), that changes its buffers or parameters while it runs (a step
would be no function of its state), or whose features of a row depend on the rows beside it (chunks would be wrong, and
a candidate's probe would depend on its neighbours).

Then its derivatives are compared: the gradient, H v, d<v, grad L>/dw and those by inputs, by the engine's two ways,
reverse over forward (mgd_core.autodiff.derivatives) and double backward (mgd_core.autodiff.directions), with PyTorch's
own double backward without any rule of ours; with central differences where PyTorch has none, or where a custom
autograd.Function leaves it in doubt. PyTorch's forward mode ignores ``no_grad``, has no rule for some functions, and
for others one over which a reverse pass raises or is wrong without a word. Where one way fails the other is taken;
where both do the model is refused, with their reasons. For a problem so small that double backward is taken anyway
nothing else is looked at. The place is beside the first parameters, moved by a tenth, since at those of many models
(gates and adapters of zeros) half of the layers have no derivative yet.

What a few rows do not show is left to the standing check of every reverse step (mgd_core.engine.step_checks).
Cost: about 40 passes over at most four rows; remembered for every objective.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mgd_core.autodiff.derivatives import (
    CurvatureProduct,
    candidate_tangents,
    chunks,
    curvature_product,
    encode_dual,
    no_derivative,
    value_and_gradient,
)
from mgd_core.autodiff.directions import Finding, Way, candidates_along, curvature_products, encode_along, is_small
from mgd_core.autodiff.dual_rules import plain_rules
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.autodiff.plain_derivatives import Slopes, plain_product, plain_tangents, worst_gap
from mgd_core.autodiff.refusals import RefusedModel, modules_of
from mgd_core.engine.chance import check_repeatable, seen_precision
from mgd_core.errors import UserError
from mgd_core.training.determinism import ambient_rng
from mgd_core.training.learner import Batch, Learner

FEW = 4  # rows; chunks of two have neighbours, and so do their rows
MOVED = 0.1  # of a parameter's own size
PROBED: Literal["probe"] = "probe"
ProbeWay = Literal["forward", "double"]

_REMEMBERED: dict[int, dict[Any, Any]] = {}
"""Findings by the identity of the objective, as long as it lives."""


def examined(learner: Learner, theta: Tensor, batch: Batch, inputs: Sequence[int] = ()) -> Finding:
    """The way by which curvature products of ``learner`` are exact at parameters like ``theta`` (P,).

    ``inputs``: columns of the rows by which is differentiated as well. Over ranks the first one looks, and tells.

    Raises:
        RefusedModel: there is none, or the model breaks another rule of the engine; says which.
    """
    if not learner.ranks.first:
        return learner.ranks.told(Finding())
    found = _remembered(learner, theta, batch, tuple(inputs), lambda: _examined(learner, theta, batch, inputs))
    if learner.ranks.count > 1 and found.way == "double":
        raise RefusedModel(
            "this model is differentiated by double backward, since forward mode is not exact for it (see the "
            "warning), and ranks take forward mode. Train it in one process (runtime.ranks = 1), or replace the "
            "operation."
        )
    return learner.ranks.told(found)


def probe_way_of(learner: Learner, theta: Tensor, batch: Batch) -> ProbeWay:
    """The way by which tangents of candidates' losses are exact.

    Raises:
        RefusedModel: there is none.
    """
    return _remembered(learner, theta, batch, PROBED, lambda: _probe_way(learner, theta, batch))


def _remembered(learner: Learner, theta: Tensor, batch: Batch, what: Any, find: Callable[[], Any]) -> Any:
    objective = learner.objective
    modes = [m.training for model in modules_of(objective) for m in model.modules()]
    rows = [(x.dtype, x.ndim) for x in batch.rows]
    how = learner.chunk is None, _is_small(learner, theta, batch)
    key = repr((what, theta.dtype, theta.device, len(theta), rows, how, modes))
    if id(objective) not in _REMEMBERED:
        _REMEMBERED[id(objective)] = {}
        weakref.finalize(objective, _REMEMBERED.pop, id(objective), None)
    found = _REMEMBERED[id(objective)]
    if key not in found:
        with ambient_rng():
            found[key] = find()
    return found[key]


class _Sample(NamedTuple):
    """Where derivatives are compared."""

    objective: Objective
    layout: ParameterLayout
    theta: Tensor  # moved
    v: Tensor
    rows: Rows
    weights: Tensor
    chunk: int | None


def _sample(learner: Learner, theta: Tensor, batch: Batch) -> _Sample:
    fits = FEW if learner.chunk is None or learner.chunk > 2 else 2  # in memory; and halves are of two rows if possible
    count = min(fits, len(batch.weights))
    rows = tuple(x[:count].clone() for x in batch.rows)
    weights = torch.linspace(0.75, 1.25, count).to(batch.weights)
    moved, v = _directions(learner.layout, theta)
    chunk = None if learner.chunk is None else max(1, count // 2)
    return _Sample(learner.objective, learner.layout, theta + MOVED * moved, v, rows, weights, chunk)


def _directions(layout: ParameterLayout, theta: Tensor) -> Tensor:
    """Two random directions (2, P) of which each parameter's part is about as large as the parameter."""
    draw = torch.Generator(theta.device).manual_seed(0)
    sizes = torch.tensor(layout.sizes, device=theta.device)
    rms = torch.stack([x.square().mean().sqrt() if x.numel() else x.new_zeros(()) for x in theta.split(layout.sizes)])
    each = rms.clamp(min=0.02).repeat_interleave(sizes, output_size=layout.length)
    return each * torch.randn(2, len(theta), generator=draw, device=theta.device, dtype=theta.dtype)


def _examined(learner: Learner, theta: Tensor, batch: Batch, inputs: Sequence[int]) -> Finding:
    sample = _sample(learner, theta, batch)
    run = _runner(sample, theta)
    check_repeatable(learner.objective, theta, run)
    eps = seen_precision(theta, run)
    _check_coupling(sample, theta, eps)
    return Finding(_exact_way(sample, inputs, eps, _is_small(learner, theta, batch)), eps)


def _is_small(learner: Learner, theta: Tensor, batch: Batch) -> bool:
    return learner.ranks.count == 1 and is_small(theta, len(batch.weights), learner.chunk)


def _runner(sample: _Sample, theta: Tensor) -> Callable[[], None]:
    """A step's gradient of the rows; an error of the model itself passes as it is, one of its derivative is told."""
    objective, layout, rows, weights = sample.objective, sample.layout, sample.rows, sample.weights

    def run() -> None:
        with torch.no_grad(), plain_rules():
            params = layout.unflatten(theta)
            objective.couple(params, objective.encode(params, rows), weights)
        try:
            value_and_gradient(objective, layout, theta, rows, weights)
        except (torch.OutOfMemoryError, UserError):
            raise
        except (RuntimeError, NotImplementedError) as error:
            told = str(error).strip().splitlines()[0]
            if "require grad" in told or "not have been used" in told:
                raise no_derivative() from error
            raise RefusedModel(f"this model has no gradient: {told}. Replace the operation that is named.") from error

    return run


def _check_coupling(sample: _Sample, theta: Tensor, eps: float) -> None:
    """Two chunkings of the rows must give the same features."""
    objective, layout, rows = sample.objective, sample.layout, sample.rows
    n = rows[0].shape[0]
    if n < 2:
        return
    with torch.no_grad(), plain_rules():
        params = layout.unflatten(theta)
        whole = objective.encode(params, rows)
        parts = [objective.encode(params, piece) for piece in chunks(rows, n // 2)]
    for number, feature in enumerate(whole):
        halves = [part[number] for part in parts]
        if any(x.shape[1:] != feature.shape[1:] for x in halves) or len(feature) != n:
            told = " and ".join(str(tuple(x.shape)) for x in halves)
            raise RefusedModel(
                f"encode gives features of shape {tuple(feature.shape)} for {n} rows together, and {told} for two "
                "parts of them: features need one row for each row, of one shape. Chunks could not be put together."
            )
        apart = ((torch.cat(halves) - feature).norm() / feature.norm().clamp(min=1e-30)).item()
        if apart > 10 * eps**0.5:
            raise RefusedModel(
                f"encode couples the rows of a batch: features of {n} rows encoded together and in two parts differ by "
                f"{apart:.2g}. Chunks and probes would be wrong, so a row's features may depend on this row alone. A "
                "mean or a norm over the batch (x - x.mean(0), batch norm) belongs into `losses`, which gets the "
                "features of all rows, or is left out."
            )


def _exact_way(sample: _Sample, inputs: Sequence[int], eps: float, small: bool) -> Way:
    reference = plain_product(*sample[:6], inputs)
    if reference is None:  # not finite: the training itself will tell
        return "either"
    arguments = sample.rows, sample.weights, sample.chunk
    _, g = value_and_gradient(*sample[:3], *arguments)
    bar = reference.bar(eps)
    apart, layer = worst_gap(Slopes.of_gradient(g), Slopes.of_gradient(reference.gradient), sample.layout)
    if not apart <= min(0.3, 100 * eps**0.5):
        raise RefusedModel(
            f"the engine's own forms of this model's functions give another gradient than PyTorch ({apart:.2g} apart, "
            f"most in '{layer}'). Please report the model."
        )

    def forward() -> CurvatureProduct:
        return curvature_product(*sample[:4], *arguments, inputs)

    def double() -> CurvatureProduct:
        return curvature_products(*sample[:3], sample.v[None], *arguments, inputs=inputs).first

    def failing(way: Callable[[], CurvatureProduct]) -> str | None:
        def gap() -> tuple[float, str]:
            return worst_gap(Slopes.of_product(way(), reference.scale), reference.slopes, sample.layout)

        return _failing(gap, bar, reference.by)

    twice = failing(double)
    return "double" if small and twice is None else _chosen(failing(forward), twice, "either")


def _probe_way(learner: Learner, theta: Tensor, batch: Batch) -> ProbeWay:
    sample = _sample(learner, theta, batch)
    others = ~torch.eye(len(sample.weights), dtype=torch.bool, device=theta.device)
    where = sample[:4]
    eps = seen_precision(theta, _runner(sample, theta))
    cotangent = torch.linspace(0.5, 1.5, len(sample.weights)).to(sample.weights)
    expected, scale = plain_tangents(*where, sample.rows, others, cotangent)

    def forward() -> tuple[float, str]:
        features = encode_dual(*where, sample.rows, sample.chunk)
        return gap(candidate_tangents(*where, features, features, others)[1])

    def double() -> tuple[float, str]:
        features = encode_along(*where, sample.rows, sample.chunk)
        return gap(candidates_along(*where, features, features, others)[1])

    def gap(tangents: Tensor) -> tuple[float, str]:
        return ((cotangent * tangents).sum() - expected).abs().item() / max(scale, 1e-30), "losses of candidates"

    bar, by = min(0.3, 100 * eps**0.5), "PyTorch's gradient"
    found = _chosen(_failing(forward, bar, by), _failing(double, bar, by), "forward")
    assert found != "either"
    return found


def _failing(gap: Callable[[], tuple[float, str]], bar: float, reference: str) -> str | None:
    """Why a way is not exact; None where it is."""
    try:
        apart, layer = gap()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever PyTorch, a model's own functions or our refusals say
        return (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
    return None if apart <= bar else f"it is {apart:.2g} off {reference}, most in '{layer}'"


def _chosen(forward: str | None, double: str | None, both: Any) -> Any:
    if forward is None:
        return both if double is None else "forward"
    if double is None:
        warnings.warn(
            f"this model is differentiated by double backward, since forward mode is not exact for it: {forward}",
            stacklevel=2,
        )
        return "double"
    raise RefusedModel(
        "this model cannot be differentiated twice, which a metagradient needs. "
        f"By forward mode: {forward}. By double backward: {double}. Replace the operation that is named."
    )
