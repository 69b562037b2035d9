"""Layers that carry a value and its directional derivative together, with a backward through both.

Each takes (x, dx, ...) and returns (y, dy) in closed form; its backward pulls the cotangents of both back by hand, with
the fused kernels of the ordinary backward wherever the Jacobian is symmetric (softmax, layer norm, GELU). Tangents of
weights and biases are constants of the direction and get no cotangent, except where the weight is itself made of
parameters (a low-rank update, a weight norm). mgd_core.autodiff.dual_rules puts these layers in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


class SoftmaxDual(torch.autograd.Function):
    """p = softmax(a), dp = p (da - <p, da>): the Jacobian is symmetric, so dp is the backward kernel applied to da."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, da: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        p = torch.softmax(a, dim)
        ctx.save_for_backward(p, da)
        ctx.dim = dim
        return p, aten._softmax_backward_data(da, p, dim, p.dtype)

    @staticmethod
    def backward(ctx: Any, gp: Tensor, gdp: Tensor) -> tuple[Tensor, Tensor, None]:
        p, da = ctx.saved_tensors
        dim = ctx.dim
        weighted = p * gdp
        total = weighted.sum(dim, keepdim=True)
        g_da = torch.addcmul(weighted, p, total, value=-1)
        shift = (p * da).sum(dim, keepdim=True)
        gp = gp + gdp * (da - shift) - da * total
        return aten._softmax_backward_data(gp, p, dim, p.dtype), g_da, None


class LayerNormDual(torch.autograd.Function):
    """y = n w + b with n = (x - mean) r; dy = P(dx) w + n dw + db, where P = r (I - 1/d - n n^T/d) is symmetric."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dx: Tensor, w: Tensor, dw: Tensor, b: Tensor, db: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        shape = (x.shape[-1],)
        n, mean, r = torch.native_layer_norm(x, shape, None, None, eps)
        u = _project(dx, x, mean, r)
        ctx.save_for_backward(x, dx, w, dw, n, mean, r, u)
        return torch.addcmul(b, n, w), torch.addcmul(torch.addcmul(db, u, w), n, dw)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, gdy: Tensor) -> tuple[Tensor | None, ...]:
        x, dx, w, dw, n, mean, r, u = ctx.saved_tensors
        d = x.shape[-1]
        q = gdy * w
        g_w = torch.addcmul(gy * n, gdy, u).reshape(-1, d).sum(0)
        g_b = gy.reshape(-1, d).sum(0)
        g_dw = (gdy * n).reshape(-1, d).sum(0) if ctx.needs_input_grad[3] else None
        g_db = gdy.reshape(-1, d).sum(0) if ctx.needs_input_grad[5] else None
        m = (n * dx).mean(-1, keepdim=True)
        h = torch.addcmul(gy * w, gdy, dw)
        h = torch.addcmul(h, q, r * m, value=-1)
        h = torch.addcmul(h, dx, r * (q * n).mean(-1, keepdim=True), value=-1)
        g_x = torch.addcmul(_project(h, x, mean, r), n, r * (q * u).mean(-1, keepdim=True), value=-1)
        return g_x, _project(q, x, mean, r), g_w, g_dw, g_b, g_db, None


def _project(c: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """P c, by the backward kernel of layer norm without gain."""
    shape = (x.shape[-1],)
    return aten.native_layer_norm_backward(c, x, shape, mean, r, None, None, [True, False, False])[0]


class GeluDual(torch.autograd.Function):
    """y = gelu(x), dy = y'(x) dx; exact or with the tanh approximation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dx: Tensor, approximate: str) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, dx)
        ctx.approximate = approximate
        return F.gelu(x, approximate=approximate), aten.gelu_backward(dx, x, approximate=approximate)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, gdy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, dx = ctx.saved_tensors
        second = gelu_curvature(x, ctx.approximate)
        g_x = torch.addcmul(aten.gelu_backward(gy, x, approximate=ctx.approximate), second.mul_(dx), gdy)
        return g_x, aten.gelu_backward(gdy, x, approximate=ctx.approximate), None


def gelu_curvature(x: Tensor, approximate: str) -> Tensor:
    """y'' of GELU; a bfloat16 ``x`` goes through float32, as in PyTorch's kernels."""
    wide = x.float() if x.dtype == torch.bfloat16 else x
    return (gelu_second if approximate == "none" else gelu_tanh_second)(wide).to(x.dtype)


def gelu_second(x: Tensor) -> Tensor:
    """y'' of x Phi(x): phi(x) (2 - x^2)."""
    square = x * x
    return square.mul(-0.5).exp_().mul_(square.neg_().add_(2.0)).mul_(1 / math.sqrt(2 * math.pi))


def gelu_tanh_second(x: Tensor) -> Tensor:
    """y'' of x (1 + tanh u) / 2 with u = k (x + c x^3): (1 - t^2) (u' + x (u''/2 - t u'^2)), t = tanh u."""
    k, c = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    t = (square * (k * c)).add_(k).mul_(x).tanh_()
    slope = square.mul_(3 * k * c).add_(k)
    inner = (slope * slope).mul_(t).neg_().add_(x, alpha=3 * k * c).mul_(x).add_(slope)
    return inner.mul_(t.mul_(t).neg_().add_(1.0))


class LinearDual(torch.autograd.Function):
    """y = x W' + b, dy = dx W' + x dW' + db: three products forward, five backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dx: Tensor, w: Tensor, dw: Tensor, b: Tensor | None, db: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, dx, w, dw)
        ctx.biased = b is not None
        flat, dflat = x.reshape(-1, x.shape[-1]), dx.reshape(-1, x.shape[-1])
        shape = (*x.shape[:-1], w.shape[0])
        tangent = F.linear(dflat, w, db).addmm_(flat, dw.t())
        return F.linear(flat, w, b).view(shape), tangent.view(shape)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, gdy: Tensor) -> tuple[Tensor | None, ...]:
        x, dx, w, dw = ctx.saved_tensors
        need_x, need_dx, _, need_dw, _, need_db = ctx.needs_input_grad
        gy, gdy = gy.reshape(-1, w.shape[0]), gdy.reshape(-1, w.shape[0])
        flat = x.reshape(-1, x.shape[-1])
        g_w = (gy.t() @ flat).addmm_(gdy.t(), dx.reshape(-1, x.shape[-1]))
        g_x = (gy @ w).addmm_(gdy, dw).view(x.shape) if need_x else None
        g_dx = (gdy @ w).view(x.shape) if need_dx else None
        g_dw = gdy.t() @ flat if need_dw else None
        return g_x, g_dx, g_w, g_dw, gy.sum(0) if ctx.biased else None, gdy.sum(0) if need_db else None


class ConvSettings(NamedTuple):
    """A convolution's numbers, one for each spatial dimension; ``groups`` is one number."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def convolve(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        """The convolution of ``x`` (n, c, ...) with ``w``."""
        zeros = [0] * len(self.stride)
        return aten.convolution(x, w, b, self.stride, self.padding, self.dilation, False, zeros, self.groups)

    def pull(self, gy: Tensor, x: Tensor, w: Tensor, wanted: list[bool]) -> list[Any]:
        """Cotangents of x, w and b; None for those that are not ``wanted``."""
        zeros, sizes = [0] * len(self.stride), [w.shape[0]]
        return aten.convolution_backward(
            gy, x, w, sizes, self.stride, self.padding, self.dilation, False, zeros, self.groups, wanted
        )


def laid_out(t: Tensor, like: Tensor) -> Tensor:
    """``t`` with its channels last in memory where those of ``like`` are.

    oneDNN chooses a kernel by the strides, and for a depthwise convolution of few pixels one choice takes 200 times as
    long as the other. At 1 x 1 pixels both layouts are one and ``contiguous`` changes nothing, so strides are compared.
    """
    if t.stride() == like.stride() or like.stride(1) != 1:
        return t
    return t.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


class ConvDual(torch.autograd.Function):
    """y = x * w + b, dy = dx * w + x * dw + db; ``dx`` None where the input does not move (pixels)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dx: Tensor | None,
        w: Tensor,
        dw: Tensor,
        b: Tensor | None,
        db: Tensor | None,
        settings: ConvSettings,
    ) -> tuple[Tensor, Tensor]:
        dx = None if dx is None else laid_out(dx, x)
        ctx.save_for_backward(x, dx, w, dw)
        ctx.settings, ctx.biased = settings, b is not None
        tangent = settings.convolve(x, dw, db)
        return settings.convolve(x, w, b), tangent if dx is None else tangent.add_(settings.convolve(dx, w))

    @staticmethod
    def backward(ctx: Any, gy: Tensor, gdy: Tensor) -> tuple[Tensor | None, ...]:
        x, dx, w, dw = ctx.saved_tensors
        need_x, need_dx, _, need_dw, _, need_db, _ = ctx.needs_input_grad
        pull: Callable[..., list[Any]] = ctx.settings.pull
        g_x, g_w, g_b = pull(gy, x, w, [need_x, True, ctx.biased])
        g_dx = g_dw = g_db = None
        if need_x or need_dw or need_db:
            turned, g_dw, g_db = pull(gdy, x, dw, [need_x, need_dw, need_db])
            g_x = g_x.add_(turned) if need_x else None
        if dx is not None:
            g_dx, extra, _ = pull(gdy, dx, w, [need_dx, True, False])
            g_w = g_w.add_(extra)
        return g_x, g_dx, g_w, g_dw, g_b, g_db, None
