"""Metasmoothness: is the map from metaparameters to the trained model smooth enough for its gradient to be of use?

Engstrom et al. 2025 (arXiv 2503.13751, section 4). A training is run at z, z + h v and z + 2 h v; no metagradient is
taken. Definition 1 (equation 5) is the second difference of a scalar f of the trained model, |f(z + 2hv) - 2 f(z + hv)
+ f(z)| / h^2: small is smooth. Definition 2 (equation 6) asks of each parameter whether it goes on in the direction
in which it set out, and weighs it by how far it came; with theta_0, theta_h, theta_2h and d = |theta_2h - theta_0|,

    S = sign(theta_h - theta_0)^T diag(d / |d|_1) sign(theta_2h - theta_h),  in [-1, 1]:

1 where every parameter answers monotonically (a linear map), near 0 where the answers are noise, -1 where they turn
back. It does not depend on the scale of the parameters. S by itself says nothing below 0.02 or so, and high S does not
promise a finite metagradient: look at more than one direction, at the movement, and at one true metagradient.

The metaparameters: a weight for each example, added to 1 at every visit from a step on (:func:`reweighted`). Any other
map to trained parameters does as well, a factor on each step's learning rate say. Cost: three trainings, of which those
of all directions share the one at z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from mgd_core.errors import UserError
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.order import generator
from mgd_core.training.streams import DIRECTIONS


class UndefinedSmoothness(UserError, ValueError):
    """The trainings do not say how smooth the map is."""


class Smoothness(NamedTuple):
    """Along one direction: Definition 2 (-1 to 1), Definition 1 (unit of the loss), and |theta_2h - theta_0|_1."""

    score: float
    curvature: float
    movement: float


def along(thetas: Sequence[Tensor], losses: Sequence[float], h: float) -> Smoothness:
    """Of trained parameters (P,) and losses at z, z + h v and z + 2 h v, in this order.

    Raises:
        UndefinedSmoothness: nothing moved, or something is not finite.
    """
    if len(thetas) != 3 or len(losses) != 3:
        raise ValueError(f"three trainings make a direction; got {len(thetas)} states and {len(losses)} losses")
    at_z, at_h, at_2h = losses
    return Smoothness(score(*thetas), curvature(at_z, at_h, at_2h, h), movement(thetas[0], thetas[2]))


def score(at_z: Tensor, at_h: Tensor, at_2h: Tensor) -> float:
    """Definition 2 of trained parameters (P,): -1 to 1, higher is smoother.

    Raises:
        UndefinedSmoothness: theta_2h is theta_0, or a parameter is not finite.
    """
    at_z, at_h, at_2h = (x.double() for x in (at_z, at_h, at_2h))  # differences of float32 are exact there
    d = (at_2h - at_z).abs()
    total = d.sum()
    if not torch.isfinite(total + at_h.sum()):
        raise UndefinedSmoothness(
            "a trained parameter is NaN or infinite, so its smoothness is undefined. Lower the learning rate, or h."
        )
    if total == 0:
        raise UndefinedSmoothness(
            "the trained parameters at z and z + 2hv are the same bit for bit: the metaparameters did not reach the "
            "training. Raise h, or begin the window earlier."
        )
    # Weighed before it is divided: exactly 1 for a linear map.
    return float((d * (at_h - at_z).sign() * (at_2h - at_h).sign()).sum() / total)


def curvature(at_z: float, at_h: float, at_2h: float, h: float) -> float:
    """Definition 1 of a scalar: |second difference| / h^2, in the scalar's unit. Of a quadratic, |f''| at any h."""
    return abs(at_2h - 2 * at_h + at_z) / h**2


def movement(at_z: Tensor, at_2h: Tensor) -> float:
    """|theta_2h - theta_0|_1: how far the whole stretch moved the parameters (P,), which S does not say."""
    return float((at_2h.double() - at_z.double()).abs().sum())


def direction(size: int, seed: int, number: int) -> Tensor:
    """v ~ N(0, 1) for each of ``size`` metaparameters, float64: a function of (seed, number) from counters alone."""
    return torch.from_numpy(generator(seed, DIRECTIONS, number).standard_normal(size))


def reweighted(learner: Learner, shift: Tensor, start: int = 0) -> Learner:
    """The learner whose example i weighs ``shift[i]`` more at each visit in steps [start, T). ``shift``: (pool,)."""

    def batches(t: int) -> Batch:
        batch = learner.batches(t)
        if t < start:
            return batch
        return batch._replace(weights=batch.weights + shift.to(batch.weights)[batch.ids])

    return replace(learner, batches=batches)
