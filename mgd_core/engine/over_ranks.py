"""Where a traversal over ranks meets the world: the target before the reverse sweep, and the result after it.

The target is evaluated by the first rank, on all parameters, and every rank gets its slice of the gradient. What a
sweep sums up is partial on every rank (rows are its own, and so are the elements that a rate's cotangent is summed
over), so one sum at the end makes it whole; nothing of it is sent before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from mgd_core.engine.metagradient import Metagradient, ProbePoint
from mgd_core.engine.store import each
from mgd_core.ranks.ranks import Partial, Replicated, Slice
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import State

Target = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Maps flat parameters (P,) to the target loss phi (scalar) and its gradient (P,); Q targets to (Q,) and (Q, P)."""


def at_first(learner: Learner, target: Target, state: State) -> tuple[torch.Tensor, torch.Tensor]:
    """phi at ``state``, on all ranks, and this rank's slice of its gradient."""
    ranks, theta = learner.ranks, learner.parameters(state)
    if ranks.count == 1:
        return target(theta)
    if ranks.first:
        phi, gradient = target(theta)
        ranks.told((phi.shape, phi.dtype))
    else:
        shape, dtype = ranks.told((theta.shape, theta.dtype))
        phi, gradient = theta.new_zeros(shape, dtype=dtype), theta.new_zeros(*shape, len(theta))
    return ranks.total(Partial(phi.detach())), ranks.scattered(Partial(gradient.detach()))


def gathered(learner: Learner, result: Metagradient, adjoint: State) -> Metagradient:
    """The whole result, on every rank: state, probe points and adjoint of all slices, sums and visits of all ranks."""
    if learner.ranks.count == 1:
        return replace(result, adjoint=adjoint)
    probes = [ProbePoint(p.step, learner.whole(p.theta), learner.whole(p.gamma)) for p in result.probes]
    final, adjoint = (each(state, learner.whole) for state in (result.final, adjoint))
    sums: dict[str, torch.Tensor] = {name: _summed(learner, total) for name, total in result.sums.items()}
    visits = _summed(learner, result.visits)
    return replace(result, final=final, adjoint=adjoint, sums=sums, visits=visits, probes=probes)


def whole_state(learner: Learner, state: State) -> State:
    """The state that the ranks' slices make."""
    return state if learner.ranks.count == 1 else each(state, learner.whole)


def _summed(learner: Learner, partial: torch.Tensor) -> Replicated:
    """The sum over ranks of tensors of any size, by slices: no rank receives more than one such tensor."""
    ranks, flat = learner.ranks, partial.reshape(-1)
    own: Slice = ranks.scattered(Partial(flat))
    return Replicated(ranks.whole(own, len(flat)).view(partial.shape))
