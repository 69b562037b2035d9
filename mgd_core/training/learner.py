"""A learner: the deterministic map from metaparameters (example weights, step sizes) to a trained model.

It holds an objective, an optimizer, a learning rate per step and the batches; all are functions of the step number, so
any step can be run again and gives the same bits. ``step`` is the only thing that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from mgd_core.autodiff.derivatives import CurvatureProduct, value_and_gradient
from mgd_core.autodiff.directions import Way, curvature
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.autodiff.refusals import check_rowwise, modules_of
from mgd_core.ranks.ranks import ALONE, Partial, Ranks, Replicated, Slice
from mgd_core.training.optimizers import Optimizer, State

__all__ = ["Batch", "Learner", "check_rowwise"]


class Batch(NamedTuple):
    """Rows of one step. ``ids`` (n,) int64: position of each row's example in the pool. ``weights`` (n,)."""

    rows: Rows
    ids: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Learner:
    """Everything that fixes a training run but its first state.

    Over ``ranks`` (mgd_core.ranks; mgd_core.training.spread makes such a learner) its batches are a rank's own rows,
    and states, gradients, cotangents and curvature products are its slices, (S,) or (Q, S) where the text says P.
    """

    objective: Objective
    layout: ParameterLayout
    optimizer: Optimizer
    learning_rates: Tensor  # (steps,), float64
    batches: Callable[[int], Batch]
    chunk: int | None = None  # rows encoded at once; None: the whole batch
    weight_decays: Tensor | None = None  # (steps,), float64; None: the optimizer's own at every step
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        """Refuse models that cannot be differentiated exactly, whoever built them (mgd_core.autodiff.refusals)."""
        for model in modules_of(self.objective):
            check_rowwise(model)

    @property
    def steps(self) -> int:
        """Length T of the training."""
        return len(self.learning_rates)

    def expect(self, steps: Iterable[int]) -> None:
        """Tell the batches, if they want to know, which steps will be asked for next (see mgd_core.training.loader)."""
        expect = getattr(self.batches, "expect", None)
        if expect is not None:
            expect(steps)

    def lr(self, t: int, like: Tensor) -> Tensor:
        """Learning rate of step ``t`` as a scalar in the state's precision."""
        return self.learning_rates[t].to(like)

    def optimizer_at(self, t: int) -> Optimizer:
        """The optimizer with the weight decay of step ``t``."""
        if self.weight_decays is None:
            return self.optimizer
        return replace(self.optimizer, weight_decay=float(self.weight_decays[t]))  # type: ignore[type-var]

    def gradient(self, state: State, t: int, batch: Batch | None = None) -> tuple[Tensor, Tensor]:
        """Loss (scalar) of step ``t`` and its gradient (P,) at ``state``; ``batch``: that of the step, if at hand."""
        batch = self.batches(t) if batch is None else batch
        theta = self.parameters(state)
        arguments = self.objective, self.layout, theta, batch.rows, batch.weights, self.chunk, self.ranks
        loss, g = value_and_gradient(*arguments)
        return loss, self.ranks.scattered(Partial(g))

    def curvature(
        self, state: State, v: Tensor, batch: Batch, inputs: Sequence[int] = (), way: Way = "either"
    ) -> CurvatureProduct:
        """Curvature products of the batch's loss along ``v``, (P,) or (Q, P): see mgd_core.autodiff.directions."""
        arguments = self.objective, self.layout, self.parameters(state), self.whole(v), batch.rows, batch.weights
        product = curvature(*arguments, self.chunk, inputs, way, self.ranks)
        return product._replace(theta=self.ranks.scattered(Partial(product.theta)))

    def parameters(self, state: State) -> Replicated:
        """All parameters of ``state``, (P,)."""
        return self.ranks.parameters(Slice(state.theta), self.layout.length)

    def whole(self, x: Tensor) -> Replicated:
        """All of a flat vector of which ranks have slices."""
        return self.ranks.whole(Slice(x), self.layout.length)

    def name_at(self, position: int) -> str:
        """Name of the parameter that owns an element of this rank's slice, for error messages."""
        return self.layout.name_at(position + self.ranks.part(self.layout.length).start)

    def step(self, state: State, t: int, batch: Batch | None = None) -> tuple[State, Tensor]:
        """State after step ``t`` and the loss (scalar) before it; ``batch``: that of the step, if at hand."""
        loss, g = self.gradient(state, t, batch)
        return self.optimizer_at(t).update(state, g, t, self.lr(t, state.theta)), loss
