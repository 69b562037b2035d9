"""ResNet-9, with the variants that make a training metasmooth.

The nine layers of the fast CIFAR-10 entries of DAWNBench (Coleman et al. 2019), with what Engstrom et al. 2025 (arXiv
2503.13751, section 4) change in them for smoothness as options: where the normalisation stands, how the picture is
pooled, what the logits are scaled by, the width. Group norm takes the place of batch norm, which couples the rows of a
batch (mgd_core.training.learner.check_rowwise); it is written over layer norm, whose second derivative is exact here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ResNetOptions:
    """A ResNet-9. ``width``: channels of the first layer; ``groups``: of the normalisation, at most."""

    classes: int = 10
    channels: int = 3
    width: int = 16
    groups: int = 4
    norm: Literal["before", "after", "none"] = "before"
    """Normalisation before the activation, after it, or nowhere."""
    pool: Literal["average", "max"] = "average"
    logit_scale: float = 0.1


class GroupNorm(nn.Module):
    """Group norm of (n, C, H, W) as layer norm over each group, with a gain and a shift for each channel."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        flat = x.reshape(len(x), self.groups, -1)
        y = F.layer_norm(flat, [flat.shape[-1]]).view(x.shape)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class ConvBlock(nn.Module):
    """Convolution, normalisation and activation in the order asked for, then a halving of the picture."""

    def __init__(self, a: int, b: int, options: ResNetOptions, halve: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(a, b, 3, padding=1, bias=options.norm == "none")
        norm: nn.Module = GroupNorm(min(options.groups, b), b) if options.norm != "none" else nn.Identity()
        self.rest = nn.Sequential(nn.GELU(), norm) if options.norm == "after" else nn.Sequential(norm, nn.GELU())
        self.pool: nn.Module = nn.Identity()
        if halve:
            self.pool = nn.AvgPool2d(2) if options.pool == "average" else nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, b, H, W), or half of that."""
        y: Tensor = self.pool(self.rest(self.conv(x)))
        return y


class ResNet9(nn.Module):
    """Logits (n, classes) of pictures (n, channels, H, W) whose sides are multiples of 8."""

    def __init__(self, options: ResNetOptions) -> None:
        super().__init__()
        w, o = options.width, options
        self.stem = nn.Sequential(ConvBlock(o.channels, w, o), ConvBlock(w, 2 * w, o, halve=True))
        self.first = nn.Sequential(ConvBlock(2 * w, 2 * w, o), ConvBlock(2 * w, 2 * w, o))
        self.middle = nn.Sequential(ConvBlock(2 * w, 4 * w, o, halve=True), ConvBlock(4 * w, 8 * w, o, halve=True))
        self.second = nn.Sequential(ConvBlock(8 * w, 8 * w, o), ConvBlock(8 * w, 8 * w, o))
        self.head = nn.Linear(8 * w, o.classes)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        """Logits, scaled."""
        y = self.stem(x)
        y = self.middle(y + self.first(y))
        y = y + self.second(y)
        pooled = y.mean((2, 3)) if self.options.pool == "average" else y.amax((2, 3))
        return self.options.logit_scale * self.head(pooled)
