"""Parameter groups: stretches of the flat vector, each stepped by an optimizer of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mgd_core.training.optimizers import Optimizer, State, UpdateCotangents, clip_by_norm, clip_vjp


@dataclass(frozen=True)
class Grouped:
    """Consecutive stretches of the parameters, each stepped by its own optimizer at its own rate.

    The learning rate of a step is that of the first group; ``apart`` (steps, groups), float64, is what the others have
    beyond it. So the derivative by it is the sum of the groups' derivatives by their own rates.
    """

    optimizers: tuple[Optimizer, ...]
    sizes: tuple[int, ...]
    apart: Tensor
    clip_norm: float | None = None  # of all groups' gradient together

    @property
    def caution(self) -> str | None:
        """That of the first group that has one."""
        return next(filter(None, (getattr(one, "caution", None) for one in self.optimizers)), None)

    def init(self, theta: Tensor) -> State:
        """Every group's own."""
        return _joined([one.init(x) for one, x in zip(self.optimizers, theta.split(self.sizes), strict=True)])

    def update(self, state: State, g: Tensor, t: int, lr: Tensor) -> State:
        g = clip_by_norm(g, self.clip_norm)
        return _joined([one.update(s, x, t, rate) for one, s, x, rate in self._each(state, g, t, lr)])

    def vjp(self, state: State, g: Tensor, t: int, lr: Tensor, adjoint: State) -> UpdateCotangents:
        each = zip(self._each(state, clip_by_norm(g, self.clip_norm), t, lr), self._parts(adjoint), strict=True)
        pulled = [one.vjp(s, x, t, rate, a) for (one, s, x, rate), a in each]
        gradient = clip_vjp(g, self.clip_norm, torch.cat([p.gradient for p in pulled], -1))
        rate = torch.stack([p.lr for p in pulled]).sum(0)
        return UpdateCotangents(gradient, _joined([p.state for p in pulled]), rate)

    def gradient_from_moments(self, state: State, after: State) -> Tensor | None:
        if self.clip_norm is not None:
            return None
        each = zip(self.optimizers, self._parts(state), self._parts(after), strict=True)
        found = [one.gradient_from_moments(before, then) for one, before, then in each]
        return None if any(g is None for g in found) else torch.cat([g for g in found if g is not None])

    def _each(self, state: State, g: Tensor, t: int, lr: Tensor) -> Iterator[tuple[Optimizer, State, Tensor, Tensor]]:
        rates = (lr + self.apart[t].to(lr)).unbind()
        return zip(self.optimizers, self._parts(state), g.split(self.sizes), rates, strict=True)

    def _parts(self, state: State) -> list[State]:
        pieces = zip(*(x.split(self.sizes, -1) for x in state.tensors), strict=True)
        return [State(theta, tuple(moments)) for theta, *moments in pieces]


def _joined(states: list[State]) -> State:
    theta, *moments = (torch.cat(x, -1) for x in zip(*(s.tensors for s in states), strict=True))
    return State(theta, tuple(moments))
