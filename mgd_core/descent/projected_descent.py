"""Projected descent on metaparameters: step against a metagradient, to the nearest z that is allowed.

The step is as long as asked, whatever the size of the gradient, since metagradients change by orders of magnitude along
the way: z - size * scale * g / rms(g), projected. A step that does not lower the target loss is taken back, and the
next one is half as long; one that does makes the next a fifth longer. Each step is one training and one reverse sweep.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgd_core.engine.metaparameters import Metaparameter

SHORTER, LONGER = 0.5, 1.2


@dataclass(frozen=True)
class Descent:
    """Where a descent is: the best z so far with its loss and gradient, the next step's length, and the z to try."""

    z: Tensor
    phi: float
    g: Tensor
    size: float
    candidate: Tensor


def begin(kind: Metaparameter, z: Tensor, phi: float, g: Tensor, size: float, scale: float | None = None) -> Descent:
    """The descent from ``z`` with loss ``phi`` and metagradient ``g``. ``size``: length of the first step as a share of
    ``scale`` (default: the mean size of z).

    Raises:
        ValueError: the gradient is zero.
    """
    if not g.any():
        raise ValueError("the metagradient is zero: the target does not depend on these metaparameters")
    return Descent(z, phi, g, size, _stepped(kind, z, g, size, scale))


def advance(kind: Metaparameter, at: Descent, phi: float, g: Tensor, scale: float | None = None) -> Descent:
    """The descent after its candidate turned out to have loss ``phi`` and metagradient ``g``."""
    if phi < at.phi:
        size = at.size * LONGER
        return Descent(at.candidate, phi, g, size, _stepped(kind, at.candidate, g, size, scale))
    size = at.size * SHORTER
    return Descent(at.z, at.phi, at.g, size, _stepped(kind, at.z, at.g, size, scale))


def _stepped(kind: Metaparameter, z: Tensor, g: Tensor, size: float, scale: float | None) -> Tensor:
    rms = g.square().mean().sqrt().clamp(min=torch.finfo(g.dtype).tiny)
    length = z.abs().mean() if scale is None else scale
    return kind.projected(z - size * length * g / rms)
