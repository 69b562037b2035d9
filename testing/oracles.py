"""Oracles for the engine: metagradients by the most naive means, sharing as little code with it as possible.

``NaiveRun`` trains a problem with plain PyTorch (per-parameter tensors, losses from ``F.cross_entropy``, optimizers
written from their papers, no dual rules, no chunks, no plans) and keeps the graph of all steps, so that one ordinary
``autograd.grad`` of the target gives every derivative. ``central_difference`` needs no derivative rule at all: it
trains again with the metaparameter moved. Cost: the graph of T steps in memory; for tiny problems only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgd_core.autodiff.layout import Params
from mgd_core.autodiff.objective import Rows
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam, Sgd, State

Values = tuple[Tensor, ...]


TRIED = 6  # steps of a settled difference


@dataclass(frozen=True)
class Problem:
    """A learner with the same losses written a second time, in plain PyTorch.

    ``losses(params, rows)``: one loss per row, (n,). ``target(params)``: scalar phi. ``joining(params, rows, others)``:
    the loss of the single pair ``rows`` as one more row of the batch ``others``. ``pool``: rows of all examples.
    """

    name: str
    learner: Learner
    initial: State
    pool: Rows
    losses: Callable[[Params, Rows], Tensor]
    joining: Callable[[Params, Rows, Rows], Tensor]
    target: Callable[[Params], Tensor]

    @property
    def pool_size(self) -> int:
        """Examples that ``Batch.ids`` index into."""
        return self.pool[0].shape[0]

    def phi_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The target in the form that ``replay`` takes."""
        theta = theta.detach().requires_grad_(True)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            phi = self.target(self.learner.layout.unflatten(theta))
            (gradient,) = torch.autograd.grad(phi, theta)
        return phi.detach(), gradient


class Joining(NamedTuple):
    """Candidates that are added to the loss of ``step`` as sum_i eps_i l_i; ``ids`` (n,) positions in the pool."""

    step: int
    ids: Tensor
    eps: Tensor


class NaiveGradient(NamedTuple):
    """phi and its derivatives by example weights (pool size,), learning rates and weight decays (T,), joining weights
    (n,), and the pool's columns of floating point (pool size, ...), by their number."""

    phi: float
    example: Tensor
    learning_rate: Tensor
    joining: Tensor | None
    weight_decay: Tensor
    inputs: dict[int, Tensor]


@dataclass(frozen=True)
class NaiveRun:
    """Plain training in which metaparameters count from step ``start`` on.

    ``shuffled`` permutes the rows of every batch: the same sums in another order. How far two such runs differ is what
    rounding alone does to a problem, whoever computes it.
    """

    problem: Problem
    start: int = 0
    shuffled: bool = False

    def gradient(self, join: Joining | None = None) -> NaiveGradient:
        """All derivatives by one reverse pass through the graph of the whole run."""
        weights = self.no_change().requires_grad_(True)
        rates = self.problem.learner.learning_rates.clone().requires_grad_(True)
        decays = self.decays().requires_grad_(True)
        pool = {c: x.clone().requires_grad_(True) for c, x in enumerate(self.problem.pool) if x.is_floating_point()}
        inputs = [weights, rates, decays, *pool.values()]
        if join is not None:
            join = join._replace(eps=join.eps.clone().requires_grad_(True))
            inputs.append(join.eps)
        phi = self.phi(weights, rates, join, create_graph=True, decays=decays, pool=pool)
        found = torch.autograd.grad(phi, inputs, allow_unused=True)
        joining = None if join is None else found[-1]
        by_input = {
            c: torch.zeros_like(x) if g is None else g for (c, x), g in zip(pool.items(), found[3:], strict=False)
        }
        return NaiveGradient(phi.item(), found[0], found[1], joining, found[2], by_input)

    def decays(self) -> Tensor:
        """Weight decay of every step (T,)."""
        learner = self.problem.learner
        if learner.weight_decays is not None:
            return learner.weight_decays.clone()
        return torch.full_like(learner.learning_rates, learner.optimizer.weight_decay)  # type: ignore[attr-defined]

    def no_change(self) -> Tensor:
        """Example weights as the batches have them: zeros (pool size,) to add to them."""
        return self.problem.initial.theta.new_zeros(self.problem.pool_size)

    def phi(
        self,
        change: Tensor,
        rates: Tensor | None = None,
        join: Joining | None = None,
        create_graph: bool = False,
        decays: Tensor | None = None,
        pool: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Target loss after training with ``change`` added to the example weights of the window.

        ``rates``, ``decays``: (T,), and ``pool``: columns of the pool that are trained on in the window, all instead
        of the problem's own.
        """
        learner, initial = self.problem.learner, self.problem.initial
        rates = learner.learning_rates if rates is None else rates
        decays, pool = self.decays() if decays is None else decays, pool or {}
        params = tuple(p.clone() for p in learner.layout.unflatten(initial.theta).values())
        moments = tuple(tuple(torch.zeros_like(p) for p in params) for _ in initial.moments)
        with torch.set_grad_enabled(create_graph), sdpa_kernel(SDPBackend.MATH):
            for t in range(learner.steps):
                graph = create_graph and t >= self.start
                g = self._gradient(params, t, change, join, graph, pool)
                with torch.set_grad_enabled(graph):
                    params, moments = self._update(params, moments, g, t, rates[t], decays[t])
            return self.problem.target(self._named(params))

    def _gradient(
        self, params: Values, t: int, change: Tensor, join: Joining | None, graph: bool, pool: Mapping[int, Tensor]
    ) -> Values:
        with torch.enable_grad():
            leaves = params if graph and t > self.start else tuple(p.detach().requires_grad_(True) for p in params)
            inside = t >= self.start
            loss = self._loss(leaves, t, change if inside else self.no_change(), join, pool if inside else {})
            return torch.autograd.grad(loss, leaves, create_graph=graph)

    def _loss(self, params: Values, t: int, change: Tensor, join: Joining | None, pool: Mapping[int, Tensor]) -> Tensor:
        problem, named = self.problem, self._named(params)
        batch = problem.learner.batches(t)
        if self.shuffled:
            batch = _permuted(batch, t)
        rows = tuple(pool[c][batch.ids] if c in pool else x for c, x in enumerate(batch.rows))
        losses = problem.losses(named, rows)
        loss = ((batch.weights + change[batch.ids]) * losses).sum() / len(losses)
        if join is not None and join.step == t:
            for eps, i in zip(join.eps, join.ids.tolist(), strict=True):
                apart = batch.ids != i
                pair = tuple(x[i : i + 1] for x in problem.pool)
                loss = loss + eps * problem.joining(named, pair, tuple(x[apart] for x in rows))
        return loss

    def _update(
        self, params: Values, moments: tuple[Values, ...], g: Values, t: int, lr: Tensor, decay: Tensor
    ) -> tuple[Values, tuple[Values, ...]]:
        optimizer = self.problem.learner.optimizer
        assert isinstance(optimizer, Adam | Sgd)
        optimizer = dataclasses.replace(optimizer, weight_decay=decay)  # type: ignore[arg-type]
        g = _clipped(g, optimizer.clip_norm)
        mask = self._decay_mask(params)
        rows: list[tuple[Tensor, ...]] = []
        for p, dp, decayed, *m in zip(params, g, mask, *moments, strict=True):
            if isinstance(optimizer, Adam):
                rows.append(_adam(optimizer, t, lr, p, dp, decayed, *m))
            else:
                rows.append(_sgd(optimizer, lr, p, dp, decayed, *m))
        new, *after = zip(*rows, strict=True)
        return self._bounded(new), tuple(after)

    def _bounded(self, params: Values) -> Values:
        bounds = self.problem.learner.optimizer.bounds  # type: ignore[attr-defined]
        if bounds is None:
            return params
        layout, inside = self.problem.learner.layout, torch.zeros(self.problem.learner.layout.length, dtype=torch.bool)
        inside[bounds.places] = True
        chosen = layout.unflatten(inside).values()
        return tuple(
            torch.where(own, p.clamp(bounds.low, bounds.high), p) for p, own in zip(params, chosen, strict=True)
        )

    def _decay_mask(self, params: Values) -> Values:
        mask = self.problem.learner.optimizer.decay_mask  # type: ignore[attr-defined]
        if mask is None:
            return tuple(torch.ones_like(p) for p in params)
        return tuple(self.problem.learner.layout.unflatten(mask).values())

    def _named(self, params: Values) -> dict[str, Tensor]:
        return dict(zip(self.problem.learner.layout.names, params, strict=True))


def _adam(
    o: Adam, t: int, lr: Tensor, p: Tensor, g: Tensor, decayed: Tensor, m: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Kingma & Ba 2015, algorithm 1, with Loshchilov & Hutter's decoupled decay; eps_root under the root."""
    if not o.decoupled:
        g = g + o.weight_decay * decayed * p
    m = o.b1 * m + (1 - o.b1) * g
    v = o.b2 * v + (1 - o.b2) * g**2
    root = torch.sqrt(v / (1 - o.b2 ** (t + 1)) + o.eps_root)
    shrunk = p * (1 - lr * o.weight_decay * decayed) if o.decoupled else p
    return shrunk - lr * m / (1 - o.b1 ** (t + 1)) / (root + o.eps), m, v


def _sgd(o: Sgd, lr: Tensor, p: Tensor, g: Tensor, decayed: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """SGD with momentum (Sutskever et al. 2013, in torch.optim's form) and coupled decay."""
    g = g + o.weight_decay * decayed * p
    m = o.momentum * m + g
    return p - lr * (g + o.momentum * m if o.nesterov else m), m


def _clipped(g: Values, max_norm: float | None) -> Values:
    if max_norm is None:
        return g
    norm = torch.sqrt(sum((x**2).sum() for x in g))  # type: ignore[arg-type]
    return tuple(x * torch.clamp(max_norm / (norm + 1e-6), max=1.0) for x in g)


def _permuted(batch: Batch, seed: int) -> Batch:
    order = torch.randperm(len(batch.ids), generator=torch.Generator().manual_seed(seed))
    return Batch(tuple(x[order] for x in batch.rows), batch.ids[order], batch.weights[order])


def central_difference(f: Callable[[Tensor], Tensor], at: Tensor, along: Tensor, h: float) -> float:
    """Derivative of ``f`` at ``at`` along ``along`` by the five-point stencil: error O(h^4) and rounding / h."""
    one, two = (f(at + k * along) - f(at - k * along) for k in (h, 2 * h))
    return ((8 * one - two) / (12 * h)).item()


def settled_difference(f: Callable[[Tensor], Tensor], at: Tensor, along: Tensor, h: float) -> float:
    """:func:`central_difference` at the step, of 8h, h, h/8, ..., whose error is least by its neighbours.

    Some trainings bend within the step that suits others: Adam's first updates are nearly signs of the gradient. From
    one step to one 8 times finer, the error of the formula falls 8^4 times and that of rounding grows 8 times, so the
    changes to the coarser and to the finer neighbour say how large both are.
    """
    tried = [central_difference(f, at, along, 8 * h / 8**k) for k in range(TRIED)]
    apart = [abs(finer - coarser) for coarser, finer in pairwise(tried)]
    error = [by_formula / 8**4 + by_rounding / 8 for by_formula, by_rounding in pairwise(apart)]
    return tried[1 + error.index(min(error))]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Euclidean norm of the difference over that of ``expected``."""
    found, expected = found.cpu(), expected.cpu()
    return ((found - expected).norm() / expected.norm()).item()


def with_learner(problem: Problem, **changes: object) -> Problem:
    """The same problem with fields of its learner replaced (chunk, optimizer, batches)."""
    learner = dataclasses.replace(problem.learner, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(problem, learner=learner, initial=learner.optimizer.init(problem.initial.theta))


def on_device(problem: Problem, device: torch.device) -> Problem:
    """The same problem with its model, which is moved, its data and its first state on ``device``."""
    learner = problem.learner
    learner.objective.model.to(device)  # type: ignore[attr-defined]

    def batches(t: int) -> Batch:
        batch = learner.batches(t)
        return Batch(tuple(x.to(device) for x in batch.rows), batch.ids.to(device), batch.weights.to(device))

    moved = dataclasses.replace(problem, initial=State(problem.initial.theta.to(device), ()))
    pool = tuple(x.to(device) for x in problem.pool)
    return with_learner(dataclasses.replace(moved, pool=pool), batches=batches)
