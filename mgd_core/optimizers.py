"""Optimizers as pure functions of flat vectors, with the knobs that make them differentiable.

``update(state, g, t, lr) -> state`` is one step U_t of ``torch.optim.AdamW`` / ``Adam`` / ``SGD`` (tests compare them
over a product of settings). ``eps_root`` is added under Adam's square root: with 0 the derivative of sqrt at a zero
second moment is infinite, so a metagradient needs a positive one (Engstrom et al. 2025, arXiv 2503.13751, section 4;
the name is optax's). Global-norm clipping is the only part that is not elementwise; its derivative is taken too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

CLIP_EPS = 1e-6  # added to the norm, as in torch.nn.utils.clip_grad_norm_


class State(NamedTuple):
    """A training state s_t: flat parameters and the optimizer's flat moments, all of shape (P,). Never mutated."""

    theta: Tensor
    moments: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Parameters first, then the moments."""
        return (self.theta, *self.moments)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(x.numel() * x.element_size() for x in self.tensors)


class Optimizer(Protocol):
    """One step as a pure function, and the gradient read back from its moments."""

    def init(self, theta: Tensor) -> State:
        """State before the first step."""

    def update(self, state: State, g: Tensor, t: int, lr: Tensor) -> State:
        """State after step ``t`` (0-based) with raw gradient ``g`` (P,) and learning rate ``lr`` (scalar)."""

    def gradient_from_moments(self, state: State, after: State) -> Tensor | None:
        """Raw gradient (P,) that led from ``state`` to ``after``; None where it cannot be read back (clipping)."""


def clip_by_norm(g: Tensor, max_norm: float | None) -> Tensor:
    """Scale ``g`` to at most ``max_norm`` (Euclidean); ``None`` leaves it."""
    if max_norm is None:
        return g
    return g * (max_norm / (g.norm() + CLIP_EPS)).clamp(max=1.0)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) with bias correction, decoupled weight decay (AdamW) or coupled, and eps_root."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = True
    clip_norm: float | None = None
    decay_mask: Tensor | None = None  # (P,), 1 where weight decay applies; None: everywhere

    def init(self, theta: Tensor) -> State:
        """Zero moments."""
        return State(theta, (torch.zeros_like(theta), torch.zeros_like(theta)))

    def _decay(self, theta: Tensor) -> Tensor:
        decay = self.weight_decay * theta
        return decay if self.decay_mask is None else decay * self.decay_mask

    def update(self, state: State, g: Tensor, t: int, lr: Tensor) -> State:
        """See :class:`Optimizer`."""
        theta, (m, v) = state
        g = clip_by_norm(g, self.clip_norm)
        if self.weight_decay and not self.decoupled:
            g = g + self._decay(theta)
        m = self.b1 * m + (1 - self.b1) * g
        v = self.b2 * v + (1 - self.b2) * g * g
        m_hat, v_hat = m / (1 - self.b1 ** (t + 1)), v / (1 - self.b2 ** (t + 1))
        move = m_hat / (torch.sqrt(v_hat + self.eps_root) + self.eps)
        if self.weight_decay and self.decoupled:
            move = move + self._decay(theta)
        return State(theta - lr * move, (m, v))

    def gradient_from_moments(self, state: State, after: State) -> Tensor | None:
        """g_t = (m_{t+1} - b1 m_t) / (1 - b1), less the coupled decay."""
        if self.clip_norm is not None:
            return None
        g = (after.moments[0] - self.b1 * state.moments[0]) / (1 - self.b1)
        return g - self._decay(state.theta) if self.weight_decay and not self.decoupled else g


@dataclass(frozen=True)
class Sgd:
    """SGD with heavy-ball or Nesterov momentum and coupled weight decay, as ``torch.optim.SGD``."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    decay_mask: Tensor | None = None

    def init(self, theta: Tensor) -> State:
        """A zero momentum buffer (torch's first step sets it to g, which is the same)."""
        return State(theta, (torch.zeros_like(theta),))

    def _decay(self, theta: Tensor) -> Tensor:
        decay = self.weight_decay * theta
        return decay if self.decay_mask is None else decay * self.decay_mask

    def update(self, state: State, g: Tensor, t: int, lr: Tensor) -> State:
        """See :class:`Optimizer`."""
        theta, (m,) = state
        g = clip_by_norm(g, self.clip_norm)
        if self.weight_decay:
            g = g + self._decay(theta)
        m = self.momentum * m + g
        move = g + self.momentum * m if self.nesterov else m
        return State(theta - lr * move, (m,))

    def gradient_from_moments(self, state: State, after: State) -> Tensor | None:
        """g_t = m_{t+1} - momentum m_t, less the decay."""
        if self.clip_norm is not None:
            return None
        g = after.moments[0] - self.momentum * state.moments[0]
        return g - self._decay(state.theta) if self.weight_decay else g


class UpdateCotangents(NamedTuple):
    """Vector-Jacobian product of one optimizer step: cotangents of its inputs."""

    gradient: Tensor  # gamma, (P,)
    state: State
    lr: Tensor  # scalar


def update_vjp(optimizer: Optimizer, state: State, g: Tensor, t: int, lr: Tensor, adjoint: State) -> UpdateCotangents:
    """Pull ``adjoint`` (cotangent of the state after step ``t``) back through the update at (state, g, lr)."""
    inputs = [x.detach().requires_grad_(True) for x in (g, *state.tensors, lr)]
    with torch.enable_grad():
        after = optimizer.update(State(inputs[1], tuple(inputs[2:-1])), inputs[0], t, inputs[-1])
        pulled = torch.autograd.grad(after.tensors, inputs, adjoint.tensors, allow_unused=True)
    filled = [torch.zeros_like(x) if c is None else c for c, x in zip(pulled, inputs, strict=True)]
    return UpdateCotangents(filled[0], State(filled[1], tuple(filled[2:-1])), filled[-1])
