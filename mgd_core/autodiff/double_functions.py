"""Layers whose backward is differentiable in closed form, for double backward: GELU and convolution.

PyTorch's own second derivative of GELU is a dozen elementwise passes, and that of a convolution with groups goes one
group at a time. mgd_core.autodiff.dual_rules puts these in place. Their backwards run under ``is_grads_batched`` as
well, where cotangents carry a hidden leading axis.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mgd_core.autodiff.dual_functions import ConvSettings, gelu_curvature, laid_out


class Gelu(torch.autograd.Function):
    """gelu(x) with a backward that is differentiable in closed form: PyTorch takes a dozen elementwise passes there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, approximate: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.approximate = approximate
        return F.gelu(x, approximate=approximate)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        return GeluBackward.apply(gy, *ctx.saved_tensors, ctx.approximate), None


class GeluBackward(torch.autograd.Function):
    """gx = y'(x) gy; with u the cotangent of gx, that of gy is y'(x) u and that of x is y''(x) gy u."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, approximate: str) -> Tensor:
        ctx.save_for_backward(gy, x)
        ctx.approximate = approximate
        return torch.ops.aten.gelu_backward(gy, x, approximate=approximate)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor | None, None]:
        gy, x = ctx.saved_tensors
        g_gy = torch.ops.aten.gelu_backward(u, x, approximate=ctx.approximate)
        if not ctx.needs_input_grad[1]:
            return g_gy, None, None
        second = gelu_curvature(x, ctx.approximate)
        return g_gy, second.mul_(gy) * u, None


class Conv(torch.autograd.Function):
    """y = x * w + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, settings: ConvSettings) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings, ctx.biased = settings, b is not None
        return settings.convolve(x, w, b)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], True, ctx.biased]
        return (*ConvBackward.apply(gy, x, w, ctx.settings, wanted), None)


class ConvBackward(torch.autograd.Function):
    """gx, gw, gb of gy; with u_x, u_w, u_b their cotangents, that of gy is u_x * w + x * u_w + u_b."""

    @staticmethod
    def forward(
        ctx: Any, gy: Tensor, x: Tensor, w: Tensor, settings: ConvSettings, wanted: list[bool]
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(gy, x, w)
        ctx.set_materialize_grads(False)
        ctx.settings = settings
        return tuple(settings.pull(gy, x, w, wanted))

    @staticmethod
    def backward(ctx: Any, u_x: Tensor | None, u_w: Tensor | None, u_b: Tensor | None) -> tuple[Tensor | None, ...]:
        gy, x, w = ctx.saved_tensors
        settings: ConvSettings = ctx.settings
        need_x, need_w = ctx.needs_input_grad[1:3]
        u_w = torch.zeros_like(w) if u_w is None else u_w
        g_gy = settings.convolve(x, u_w, u_b)
        g_x = settings.pull(gy, x, u_w, [True, False, False])[0] if need_x else None
        g_w = None
        if u_x is not None:
            u_x = laid_out(u_x, x)
            g_gy = g_gy + settings.convolve(u_x, w)
            g_w = settings.pull(gy, u_x, w, [False, True, False])[1] if need_w else None
        return g_gy, g_x, g_w, None, None
