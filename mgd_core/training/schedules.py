"""Learning-rate schedules: the rate of every step as one vector, so that it can be a metaparameter."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def warmup_cosine(steps: int, peak: float, warmup: int, floor: float = 0.0) -> Tensor:
    """Linear warm-up over ``warmup`` steps, then a half cosine to ``floor``; shape (steps,), float64.

    Same rule as open_clip's ``cosine_lr``: step t of the warm-up has peak * (t + 1) / warmup.
    """
    _check(steps, peak, warmup)
    rates = []
    for t in range(steps):
        if t < warmup:
            rates.append(peak * (t + 1) / warmup)
        else:
            progress = (t - warmup) / max(1, steps - warmup)
            rates.append(floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress)))
    return torch.tensor(rates, dtype=torch.float64)


def one_cycle(steps: int, peak: float, warmup: int, start: float = 0.0, end: float = 0.0) -> Tensor:
    """Linear one-cycle: ``start`` up to ``peak`` over ``warmup`` steps, then down to ``end``; (steps,), float64."""
    _check(steps, peak, warmup)
    up = [start + (peak - start) * (t + 1) / warmup for t in range(warmup)]
    down = steps - warmup
    return torch.tensor(up + [peak + (end - peak) * (t + 1) / down for t in range(down)], dtype=torch.float64)


def constant(steps: int, peak: float, warmup: int = 0) -> Tensor:
    """``peak`` after a linear warm-up; (steps,), float64."""
    _check(steps, peak, warmup)
    return torch.tensor([peak * min(1.0, (t + 1) / max(1, warmup)) for t in range(steps)], dtype=torch.float64)


def _check(steps: int, peak: float, warmup: int) -> None:
    if steps < 1 or not 0 <= warmup <= steps or not peak > 0:
        raise ValueError(
            f"a schedule needs steps >= 1, 0 <= warmup <= steps and peak > 0; got steps={steps}, warmup={warmup}, "
            f"peak={peak}"
        )
