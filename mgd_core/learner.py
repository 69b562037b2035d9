"""A learner: the deterministic map from metaparameters (example weights, step sizes) to a trained model.

It holds an objective, an optimizer, a learning rate per step and the batches; all are functions of the step number, so
any step can be run again and gives the same bits. ``step`` is the only thing that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor, nn

from mgd_core.derivatives import value_and_gradient
from mgd_core.layout import ParameterLayout
from mgd_core.objective import Objective, Rows
from mgd_core.optimizers import Optimizer, State


class Batch(NamedTuple):
    """Rows of one step. ``ids`` (n,) int64: position of each row's example in the pool. ``weights`` (n,)."""

    rows: Rows
    ids: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Learner:
    """Everything that fixes a training run but its first state."""

    objective: Objective
    layout: ParameterLayout
    optimizer: Optimizer
    learning_rates: Tensor  # (steps,), float64
    batches: Callable[[int], Batch]
    chunk: int | None = None  # rows encoded at once; None: the whole batch
    weight_decays: Tensor | None = None  # (steps,), float64; None: the optimizer's own at every step

    @property
    def steps(self) -> int:
        """Length T of the training."""
        return len(self.learning_rates)

    def expect(self, steps: Iterable[int]) -> None:
        """Tell the batches, if they want to know, which steps will be asked for next (see mgd_core.loader)."""
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

    def gradient(self, state: State, t: int) -> tuple[Tensor, Tensor]:
        """Loss (scalar) of step ``t`` and its gradient (P,) at ``state``."""
        batch = self.batches(t)
        return value_and_gradient(self.objective, self.layout, state.theta, batch.rows, batch.weights, self.chunk)

    def step(self, state: State, t: int) -> tuple[State, Tensor]:
        """State after step ``t`` and the loss (scalar) before it."""
        loss, g = self.gradient(state, t)
        return self.optimizer_at(t).update(state, g, t, self.lr(t, state.theta)), loss


def check_rowwise(model: nn.Module) -> None:
    """Refuse layers that make a row's features depend on other rows or on chance.

    Raises:
        ValueError: naming the layer and what to use instead.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"layer '{name}' is a {type(module).__name__}: it couples the rows of a batch, so features cannot be "
                "recomputed by chunks and the metagradient would be wrong. Use LayerNorm or GroupNorm instead."
            )
        if isinstance(module, nn.modules.instancenorm._InstanceNorm):
            raise ValueError(
                f"layer '{name}' is a {type(module).__name__}, whose second derivative is wrong in PyTorch's forward "
                "mode. Use GroupNorm with one channel a group, which computes the same."
            )
        p = _drop_probability(module)
        if p > 0:
            raise ValueError(
                f"layer '{name}' ({type(module).__name__}) drops activations at random (p={p}); a replayed step would "
                "differ. Set p to 0."
            )


def _drop_probability(module: nn.Module) -> float:
    """Of torch's dropouts, and of timm's and open_clip's kinds (DropPath, PatchDropout), which share no base class."""
    if isinstance(module, nn.MultiheadAttention):
        return float(module.dropout)
    if "drop" not in type(module).__name__.lower():
        return 0.0
    return next((float(getattr(module, key)) for key in ("p", "drop_prob", "prob") if hasattr(module, key)), 0.0)
