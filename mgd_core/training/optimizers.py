"""Optimizers as pure functions of flat vectors, with the knobs that make them differentiable.

``update(state, g, t, lr) -> state`` is one step U_t of ``torch.optim.AdamW`` / ``Adam`` / ``SGD`` (tests compare them
over a product of settings). ``eps_root`` is added under Adam's square root: with 0 the derivative of sqrt at a zero
second moment is infinite, so a metagradient needs a positive one (Engstrom et al. 2025, arXiv 2503.13751, section 4;
the name is optax's). Global-norm clipping is the only part that is not elementwise; its derivative is taken too.

``vjp`` is the derivative of a step in closed form, for one adjoint or for Q at once: U_t is elementwise, so the factors
are vectors of shape (P,) that all Q share. About as many passes over memory as two updates, and no graph; in place
where the vector is our own, since a fresh one costs page faults, which can be dearer than the arithmetic. An optimizer
of one's own may return ``autograd_vjp(self, ...)`` instead, which tests compare the closed forms with.

Over ranks (mgd_core.ranks) everything is a slice, but for the norm that clips, and the cotangents of rate and weight
decay are partial: sums over this rank's elements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mgd_core.errors import UserError
from mgd_core.ranks.ranks import ALONE, Partial, Ranks, Slice

CLIP_EPS = 1e-6  # added to the norm, as in torch.nn.utils.clip_grad_norm_


class OptimizerError(UserError, ValueError):
    """Settings that no optimizer has."""


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

    def vjp(self, state: State, g: Tensor, t: int, lr: Tensor, adjoint: State) -> UpdateCotangents:
        """Pull ``adjoint``, the cotangent (P,) or (Q, P) of the state after step ``t``, back to (g, state, lr)."""

    def gradient_from_moments(self, state: State, after: State) -> Tensor | None:
        """Raw gradient (P,) that led from ``state`` to ``after``; None where it cannot be read back (clipping)."""


class UpdateCotangents(NamedTuple):
    """Vector-Jacobian product of one optimizer step: cotangents of its inputs, each with the adjoint's leading Q."""

    gradient: Tensor  # gamma, (P,) or (Q, P)
    state: State
    lr: Tensor  # scalar or (Q,)
    weight_decay: Tensor | None = None  # scalar or (Q,); None: the optimizer does not say


class Bounds(NamedTuple):
    """Parameters that every step brings back between two values: their places (n,) int64 in theta, and the values.

    The derivative is that of ``torch.clamp``: 1 for a parameter that the step left between the two or on one of them,
    0 for one that was beyond. Moments go on as if nothing had been brought back, as where a model's parameter is
    clamped in place after ``optimizer.step()`` (open_clip's logit scale).
    """

    places: Tensor
    low: float
    high: float


def clip_by_norm(g: Tensor, max_norm: float | None, ranks: Ranks = ALONE) -> Tensor:
    """Scale ``g`` to at most ``max_norm`` (Euclidean); ``None`` leaves it."""
    if max_norm is None:
        return g
    return g * (max_norm / (ranks.norm(Slice(g)) + CLIP_EPS)).clamp(max=1.0)


def clip_vjp(g: Tensor, max_norm: float | None, cotangent: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Pull ``cotangent`` (..., P) of the clipped gradient back to ``g`` (P,).

    Where it is clipped, g' = s g with s = max_norm / (|g| + eps), and ds = -s / (|g| + eps) <g, dg> / |g|.
    """
    if max_norm is None:
        return cotangent
    norm = ranks.norm(Slice(g))
    scale = max_norm / (norm + CLIP_EPS)
    slope = torch.where((scale <= 1.0) & (norm > 0), -scale / ((norm + CLIP_EPS) * norm), 0.0)
    return cotangent * scale.clamp(max=1.0) + (slope * ranks.total(Partial(cotangent @ g)))[..., None] * g


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
    bounds: Bounds | None = None  # None: no parameter has any
    ranks: Ranks = ALONE  # whose slices states, gradients and the mask are

    def __post_init__(self) -> None:
        """Refuse settings that are no Adam."""
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1 and self.eps >= 0 and self.eps_root >= 0):
            raise OptimizerError(
                f"Adam needs b1 and b2 in [0, 1), and eps and eps_root of at least 0; got b1={self.b1}, b2={self.b2}, "
                f"eps={self.eps}, eps_root={self.eps_root}."
            )

    @property
    def caution(self) -> str | None:
        """What a metagradient of these settings is worth, where it is worth little."""
        if self.b2 > 0:
            return None
        return (
            "Adam with b2 = 0 divides each gradient by its own size, so a step follows little but its signs and the "
            "training is chaotic: the metagradient is exact, and says nothing about a change of any size. Raise b2."
        )

    def init(self, theta: Tensor) -> State:
        """Zero moments."""
        return State(theta, (torch.zeros_like(theta), torch.zeros_like(theta)))

    def update(self, state: State, g: Tensor, t: int, lr: Tensor) -> State:
        m, v = self._moments(state, self._decayed(state, g))
        root = (v * (1 / (1 - self.b2 ** (t + 1)))).add_(self.eps_root).sqrt_()
        move = (m / (root + self.eps)).mul_(lr / (1 - self.b1 ** (t + 1)))
        if _decays(self) and self.decoupled:
            move = move + lr * _decay(self, state.theta)
        return State(_bounded(self, state.theta - move), (m, v))

    def vjp(self, state: State, g: Tensor, t: int, lr: Tensor, adjoint: State) -> UpdateCotangents:
        """See :class:`Optimizer`. With r the root and c the bias corrections: d move / dm = 1 / (c1 (r + eps)) and
        d move / dv = -move / (2 c2 r (r + eps))."""
        lam, (lam_m, lam_v) = _within_bounds(self, state, g, t, lr, adjoint.theta), adjoint.moments
        decayed = self._decayed(state, g)
        m, v = self._moments(state, decayed)
        c1, c2 = 1 - self.b1 ** (t + 1), 1 - self.b2 ** (t + 1)
        root = v.mul_(1 / c2).add_(self.eps_root).sqrt_()
        by_m = (root + self.eps).mul_(c1).reciprocal_()
        move = m.mul_(by_m)
        by_v = (move * by_m).div_(root.mul_(-2 * c2 / c1))
        to_m = torch.addcmul(lam_m, lam, by_m.mul_(-lr))
        to_v = torch.addcmul(lam_v, lam, by_v.mul_(-lr))
        gamma = (to_m * (1 - self.b1)).addcmul_(to_v, decayed, value=2 * (1 - self.b2))
        masked = _masked(self, state.theta)
        by_decay = -lr * (lam @ masked) if self.decoupled else gamma @ masked
        theta = lam
        if _decays(self) and self.decoupled:
            decay = _decay(self, torch.ones_like(g))
            theta = lam * (1 - lr * decay)
            move.add_(decay.mul_(state.theta))
        elif _decays(self):
            theta = lam + _decay(self, gamma)
        moments = to_m.mul_(self.b1), to_v.mul_(self.b2)
        gamma = clip_vjp(g, self.clip_norm, gamma, self.ranks)
        return UpdateCotangents(gamma, State(theta, moments), -(lam @ move), by_decay)

    def _decayed(self, state: State, g: Tensor) -> Tensor:
        """The clipped gradient, and the coupled decay with it."""
        g = clip_by_norm(g, self.clip_norm, self.ranks)
        return g + _decay(self, state.theta) if _decays(self) and not self.decoupled else g

    def _moments(self, state: State, g: Tensor) -> tuple[Tensor, Tensor]:
        m, v = state.moments
        return (m * self.b1).add_(g, alpha=1 - self.b1), (v * self.b2).addcmul_(g, g, value=1 - self.b2)

    def gradient_from_moments(self, state: State, after: State) -> Tensor | None:
        """g_t = (m_{t+1} - b1 m_t) / (1 - b1), less the coupled decay."""
        if self.clip_norm is not None:
            return None
        g = torch.sub(after.moments[0], state.moments[0], alpha=self.b1).mul_(1 / (1 - self.b1))
        return g.sub_(_decay(self, state.theta)) if _decays(self) and not self.decoupled else g


@dataclass(frozen=True)
class Sgd:
    """SGD with heavy-ball or Nesterov momentum and coupled weight decay, as ``torch.optim.SGD``."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    decay_mask: Tensor | None = None
    bounds: Bounds | None = None
    ranks: Ranks = ALONE

    def init(self, theta: Tensor) -> State:
        """A zero momentum buffer (torch's first step sets it to g, which is the same)."""
        return State(theta, (torch.zeros_like(theta),))

    def update(self, state: State, g: Tensor, t: int, lr: Tensor) -> State:
        move, m = self._move(state, g)
        return State(_bounded(self, torch.addcmul(state.theta, move, lr, value=-1)), (m,))

    def vjp(self, state: State, g: Tensor, t: int, lr: Tensor, adjoint: State) -> UpdateCotangents:
        lam, (lam_m,) = _within_bounds(self, state, g, t, lr, adjoint.theta), adjoint.moments
        move, _ = self._move(state, g)
        to_move = lam * -lr
        to_m = torch.add(lam_m, to_move, alpha=self.momentum if self.nesterov else 1)
        gamma = to_m + to_move if self.nesterov else to_m
        theta = lam + _decay(self, gamma) if _decays(self) else lam
        by_decay = gamma @ _masked(self, state.theta)
        gamma = clip_vjp(g, self.clip_norm, gamma, self.ranks)
        return UpdateCotangents(gamma, State(theta, (to_m * self.momentum,)), -(lam @ move), by_decay)

    def _move(self, state: State, g: Tensor) -> tuple[Tensor, Tensor]:
        """What the learning rate multiplies, and the new momentum."""
        g = clip_by_norm(g, self.clip_norm, self.ranks)
        if _decays(self):
            g = g + _decay(self, state.theta)
        m = (state.moments[0] * self.momentum).add_(g)
        return (torch.add(g, m, alpha=self.momentum) if self.nesterov else m), m

    def gradient_from_moments(self, state: State, after: State) -> Tensor | None:
        """g_t = m_{t+1} - momentum m_t, less the decay."""
        if self.clip_norm is not None:
            return None
        g = torch.sub(after.moments[0], state.moments[0], alpha=self.momentum)
        return g.sub_(_decay(self, state.theta)) if _decays(self) else g


def _bounded(optimizer: Adam | Sgd, theta: Tensor) -> Tensor:
    """Parameters (P,) that a step made, those that have bounds brought back between them."""
    if optimizer.bounds is None:
        return theta
    places, low, high = optimizer.bounds
    return theta.index_copy(0, places, theta[places].clamp(low, high))


def _within_bounds(optimizer: Adam | Sgd, state: State, g: Tensor, t: int, lr: Tensor, lam: Tensor) -> Tensor:
    """The cotangent (..., P) of parameters after a step, pulled back to what they were before they were brought back:
    the step is taken again for those that have bounds."""
    if optimizer.bounds is None:
        return lam
    places, low, high = optimizer.bounds
    mask = None if optimizer.decay_mask is None else optimizer.decay_mask[places]
    free = replace(optimizer, bounds=None, clip_norm=None, decay_mask=mask)
    own = State(state.theta[places], tuple(moment[places] for moment in state.moments))
    made = free.update(own, clip_by_norm(g, optimizer.clip_norm, optimizer.ranks)[places], t, lr).theta
    return lam.index_copy(-1, places, lam[..., places] * ((made >= low) & (made <= high)))


def _decays(optimizer: Adam | Sgd) -> bool:
    """Whether the step has a decay, be it a tensor of 0 by which is differentiated."""
    return isinstance(optimizer.weight_decay, Tensor) or optimizer.weight_decay != 0


def _decay(optimizer: Adam | Sgd, x: Tensor) -> Tensor:
    """Weight decay of ``x`` (..., P), where the mask has it apply."""
    return optimizer.weight_decay * _masked(optimizer, x)


def _masked(optimizer: Adam | Sgd, x: Tensor) -> Tensor:
    return x if optimizer.decay_mask is None else x * optimizer.decay_mask


def autograd_vjp(optimizer: Optimizer, state: State, g: Tensor, t: int, lr: Tensor, adjoint: State) -> UpdateCotangents:
    """``optimizer.vjp`` by differentiating ``optimizer.update``: for an adjoint of shape (P,), or each of (Q, P).

    The cotangent of the weight decay is taken where the optimizer has a field ``weight_decay``, which is then a tensor.
    """
    if adjoint.theta.ndim > 1:
        each = [
            autograd_vjp(optimizer, state, g, t, lr, State(theta, tuple(moments)))
            for theta, *moments in zip(*adjoint.tensors, strict=True)
        ]
        gradient, pulled, rates, decays = zip(*each, strict=True)
        stacked = [torch.stack(x) for x in zip(*(p.tensors for p in pulled), strict=True)]
        by_decay = None if decays[0] is None else torch.stack(decays)
        pulled_state = State(stacked[0], tuple(stacked[1:]))
        return UpdateCotangents(torch.stack(gradient), pulled_state, torch.stack(rates), by_decay)
    inputs = [x.detach().requires_grad_(True) for x in (g, *state.tensors, lr)]
    decay: Tensor | None = None
    if hasattr(optimizer, "weight_decay"):
        decay = torch.as_tensor(optimizer.weight_decay, dtype=g.dtype, device=g.device).detach().requires_grad_(True)
        optimizer = replace(optimizer, weight_decay=decay)  # type: ignore[type-var]
    with torch.enable_grad():
        after = optimizer.update(State(inputs[1], tuple(inputs[2:-1])), inputs[0], t, inputs[-1])
        sought = [*inputs, *([] if decay is None else [decay])]
        found = torch.autograd.grad(after.tensors, sought, adjoint.tensors, allow_unused=True)
    filled = [torch.zeros_like(x) if c is None else c for c, x in zip(found, sought, strict=True)]
    states = filled[1 : len(inputs) - 1]
    by_decay = None if decay is None else filled[-1]
    return UpdateCotangents(filled[0], State(states[0], tuple(states[1:])), filled[len(inputs) - 1], by_decay)
