"""What a traversal gives: the metagradient, the trained model, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mgd_core.plans.actions import Tier
from mgd_core.training.optimizers import State


@dataclass(frozen=True)
class ProbePoint:
    """Where candidates may enter: parameters theta_k (P,) and the cotangent gamma_k of step k's gradient, (P,)."""

    step: int
    theta: Tensor
    gamma: Tensor


@dataclass
class Metagradient:
    """d phi / d z for the metaparameters of the window, and what it cost.

    ``phi``: the target loss, scalar; ``sums``: d phi / dz by the name of each kind (mgd_core.engine.metaparameters);
    ``visits``: (pool size,) how often each example was seen in the window; ``adjoint``: that of s_k. For Q targets at
    once, ``phi`` is (Q,), and ``sums``, ``adjoint`` and the probes' gamma have a leading axis Q.

    ``advances``: untraced steps in the window, by this process and by those it went on from up to their last record.
    ``peak_states``: states kept at once by this process, for each tier in use; ``state_bytes``: bytes of one.
    """

    phi: Tensor
    final: State
    sums: dict[str, Tensor]
    visits: Tensor
    train_losses: list[float]
    probes: list[ProbePoint] = field(default_factory=list)
    adjoint: State | None = None
    advances: int = 0
    reverse_steps: int = 0
    peak_states: dict[Tier, int] = field(default_factory=dict)
    state_bytes: int = 0

    @property
    def example(self) -> Tensor:
        """(pool size,): sums over visits of d phi / d w."""
        return self.sums["example"]

    @property
    def learning_rate(self) -> Tensor:
        """(T,): d phi / d learning rate of each step, zero before the window."""
        return self.sums["learning_rate"]
