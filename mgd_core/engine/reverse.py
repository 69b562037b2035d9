"""One reverse step: from the adjoint of s_{t+1} to that of s_t, and the metagradient of step t's metaparameters.

With lambda the adjoint of s_{t+1} (Engstrom et al. 2025, arXiv 2503.13751, section 3; split into one VJP of the update
and one curvature product):

    (gamma, lambda', dlr) = VJP of the optimizer update at (g_t, s_t, lr_t) with lambda
    D = <gamma, grad_theta L_t(theta; w)>;   lambda = lambda' + (dD/dtheta, 0, 0);   dw = dD/dw

and dx = dD/dx for inputs x of the step, if asked (mgd_core.engine.metaparameters). g_t is read back from the
optimizer's moments where they hold it, else computed again. Cost: about 2.7 training steps.

With Q targets the adjoint's tensors have a leading Q, and so has everything else: g_t, the factors of the update's
derivative and the primal pass are shared. Cost: 1 + 2 Q training steps; far less where launching kernels is the cost
(mgd_core.autodiff.directions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from mgd_core.autodiff.directions import Finding
from mgd_core.engine.step_checks import InexactError, NonFiniteError, Taken, check_finite, check_taken
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import State

__all__ = ["InexactError", "NonFiniteError", "ReverseStep", "check_finite", "reverse_step"]


UNKNOWN = Finding()


class ReverseStep(NamedTuple):
    """What one reverse step gives."""

    adjoint: State  # of s_t
    gamma: Tensor  # cotangent of the gradient of step t, (P,) or (Q, P)
    weights: Tensor  # d phi / d w of the rows of the batch, (n,) or (Q, n)
    lr: Tensor  # d phi / d learning rate of step t, scalar or (Q,); over ranks partial, as is that by weight decay
    weight_decay: Tensor | None = None  # the same by its weight decay, where the optimizer says it
    inputs: Mapping[int, Tensor] = MappingProxyType({})  # d phi / d of a column of the rows, (n, ...) or (Q, n, ...)


def reverse_step(
    learner: Learner,
    state: State,
    after: State,
    adjoint: State,
    t: int,
    batch: Batch,
    from_moments: bool = True,
    inputs: Sequence[int] = (),
    finding: Finding = UNKNOWN,
) -> ReverseStep:
    """Pull ``adjoint`` (of ``after``, the state after step ``t``) back through step ``t``, taken at ``state``.

    The adjoint's tensors: (P,), or (Q, P) for Q targets. ``inputs``: columns of the batch's rows whose cotangents are
    wanted. ``finding``: how the curvature product is taken, of mgd_core.engine.examination.

    Raises:
        NonFiniteError: a cotangent became NaN or infinite; names the step and the parameter.
        InexactError: the derivative along gamma is not <gamma, g>.
    """
    optimizer = learner.optimizer_at(t)
    g = optimizer.gradient_from_moments(state, after) if from_moments else None
    if g is None:
        _, g = learner.gradient(state, t)
    pulled = optimizer.vjp(state, g, t, learner.lr(t, state.theta), adjoint)
    product = learner.curvature(state, pulled.gradient, batch, inputs, finding.way)
    theta = pulled.state.theta + product.theta
    check_taken(learner, Taken(state, after, t, batch, g, pulled, product, theta, *finding))
    return ReverseStep(
        State(theta, pulled.state.moments),
        pulled.gradient,
        product.weights,
        pulled.lr,
        pulled.weight_decay,
        dict(zip(inputs, product.inputs, strict=True)),
    )
