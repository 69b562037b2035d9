"""Fast and reverse-differentiable forward-mode rules for the layers of a transformer.

The engine takes one reverse pass over a forward-mode derivative. PyTorch's own forward-mode rules get in the way:
softmax and logsumexp write in place (a reverse pass over them raises); the one of layer norm takes mean and variance
for constants (a reverse pass over it is silently wrong, torch 2.12); and layer norm and GELU fall apart into dozens of
elementwise kernels. Inside ``dual_rules()`` these functions, and attention, go through the closed forms
below: each computes (y, dy) together, and its backward pulls the cotangents of both back by hand, with the fused
kernels of the ordinary backward wherever the Jacobian is symmetric (softmax, layer norm, GELU). Outside a dual level
the ordinary functions run. Tests compare every rule with PyTorch's in float64.

A tangent that comes from the direction v (of weights and biases) is a constant: no cotangent is returned for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


class _Softmax(torch.autograd.Function):
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


class _LayerNorm(torch.autograd.Function):
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
        m = (n * dx).mean(-1, keepdim=True)
        h = torch.addcmul(gy * w, gdy, dw)
        h = torch.addcmul(h, q, r * m, value=-1)
        h = torch.addcmul(h, dx, r * (q * n).mean(-1, keepdim=True), value=-1)
        g_x = torch.addcmul(_project(h, x, mean, r), n, r * (q * u).mean(-1, keepdim=True), value=-1)
        return g_x, _project(q, x, mean, r), g_w, None, g_b, None, None


def _project(c: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """P c, by the backward kernel of layer norm without gain."""
    shape = (x.shape[-1],)
    return aten.native_layer_norm_backward(c, x, shape, mean, r, None, None, [True, False, False])[0]


class _Gelu(torch.autograd.Function):
    """y = gelu(x), dy = y'(x) dx; exact or with the tanh approximation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dx: Tensor, approximate: str) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, dx)
        ctx.approximate = approximate
        return F.gelu(x, approximate=approximate), aten.gelu_backward(dx, x, approximate=approximate)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, gdy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, dx = ctx.saved_tensors
        second = (_gelu_second if ctx.approximate == "none" else _gelu_tanh_second)(x)
        g_x = torch.addcmul(aten.gelu_backward(gy, x, approximate=ctx.approximate), second.mul_(dx), gdy)
        return g_x, aten.gelu_backward(gdy, x, approximate=ctx.approximate), None


def _gelu_second(x: Tensor) -> Tensor:
    """y'' of x Phi(x): phi(x) (2 - x^2)."""
    square = x * x
    return square.mul(-0.5).exp_().mul_(square.neg_().add_(2.0)).mul_(1 / math.sqrt(2 * math.pi))


def _gelu_tanh_second(x: Tensor) -> Tensor:
    """y'' of x (1 + tanh u) / 2 with u = k (x + c x^3): (1 - t^2) (u' + x (u''/2 - t u'^2)), t = tanh u."""
    k, c = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    t = (square * (k * c)).add_(k).mul_(x).tanh_()
    slope = square.mul_(3 * k * c).add_(k)
    inner = (slope * slope).mul_(t).neg_().add_(x, alpha=3 * k * c).mul_(x).add_(slope)
    return inner.mul_(t.mul_(t).neg_().add_(1.0))


class _Linear(torch.autograd.Function):
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
        need_x, need_dx = ctx.needs_input_grad[:2]
        gy, gdy = gy.reshape(-1, w.shape[0]), gdy.reshape(-1, w.shape[0])
        g_w = (gy.t() @ x.reshape(-1, x.shape[-1])).addmm_(gdy.t(), dx.reshape(-1, x.shape[-1]))
        g_x = (gy @ w).addmm_(gdy, dw).view(x.shape) if need_x else None
        g_dx = (gdy @ w).view(x.shape) if need_dx else None
        return g_x, g_dx, g_w, None, gy.sum(0) if ctx.biased else None, None


def _dual(x: Tensor) -> tuple[Tensor, Tensor | None]:
    unpacked = fwd.unpack_dual(x)
    return unpacked.primal, unpacked.tangent


def _or_zero(tangent: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tangent is None else tangent


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Softmax along ``dim``."""
    primal, tangent = _dual(x)
    if tangent is None:
        return torch.softmax(x, dim)
    return fwd.make_dual(*_Softmax.apply(primal, tangent, dim % primal.ndim))


def layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Layer norm over the last dimensions ``shape``, with or without gain and bias."""
    primal, tangent = _dual(x)
    if tangent is None:
        return F.layer_norm(x, shape, weight, bias, eps)
    d = math.prod(shape)
    flat, dflat = (z.reshape(*z.shape[: z.ndim - len(shape)], d) for z in (primal, tangent))
    gain, shift = _affine(weight, flat.new_ones(d)), _affine(bias, flat.new_zeros(d))
    y, dy = _LayerNorm.apply(flat, dflat, *gain, *shift, eps)
    return fwd.make_dual(y.view(primal.shape), dy.view(primal.shape))


def _affine(parameter: Tensor | None, default: Tensor) -> tuple[Tensor, Tensor]:
    """A gain or bias and its tangent, as vectors; ``default`` where the layer has none."""
    primal, tangent = (default, None) if parameter is None else _dual(parameter.reshape(-1))
    return primal, _or_zero(tangent, primal)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *others: Any,
    **named: Any,
) -> Tensor:
    """Batch norm with frozen statistics; with a batch's own it is refused."""
    if training:
        raise ValueError("batch norm in training mode couples the rows of a batch: use LayerNorm or GroupNorm instead")
    return F.batch_norm(x, running_mean, running_var, weight, bias, training, *others, **named)


def instance_norm(x: Tensor, *others: Any, **named: Any) -> Tensor:
    """Refused: PyTorch's reverse pass over its tangent takes the statistics for constants, without a word."""
    raise ValueError(
        "instance norm has no correct second derivative in PyTorch's forward mode; use GroupNorm with one channel a "
        "group, which computes the same"
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Affine map of the last dimension."""
    (x0, dx), (w, dw) = _dual(x), _dual(weight)
    b, db = (None, None) if bias is None else _dual(bias)
    if dx is None or dw is None or x0.ndim < 2:
        return F.linear(x, weight, bias)
    db = None if b is None else _or_zero(db, b)
    return fwd.make_dual(*_Linear.apply(x0, dx, w, dw, b, db))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """GELU, exact or with the tanh approximation."""
    primal, tangent = _dual(x)
    if tangent is None:
        return F.gelu(x, approximate=approximate)
    return fwd.make_dual(*_Gelu.apply(primal, tangent, approximate))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Scaled dot-product attention by its definition: the only form with all the derivatives that the engine takes."""
    if dropout_p or enable_gqa:
        raise ValueError("attention with dropout or grouped queries is not supported: set dropout to 0")
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        keep = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~keep, float("-inf"))
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if masked else scores + attn_mask
    return softmax(scores, -1) @ value


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    **others: Any,
) -> tuple[Tensor, None]:
    """``F.multi_head_attention_forward`` for self-attention on (L, N, E), without weights in the output."""
    padded = others.get("key_padding_mask") is not None
    unsupported = bias_k is not None or bias_v is not None or add_zero_attn or padded
    if unsupported or in_proj_weight is None or not (query is key and key is value) or others.get("need_weights"):
        raise ValueError(
            "this attention layer uses a form the engine has no derivative rule for (cross-attention, key padding, "
            "bias_k, or attention weights as an output); use plain self-attention"
        )
    length, n, width = query.shape
    q, k, v = (
        x.reshape(length, n * num_heads, width // num_heads).transpose(0, 1).view(n, num_heads, length, -1)
        for x in linear(query, in_proj_weight, in_proj_bias).chunk(3, dim=-1)
    )
    mixed = attention(q, k, v, attn_mask, dropout_p, is_causal and attn_mask is None)
    mixed = mixed.permute(2, 0, 1, 3).reshape(length, n, width)
    return linear(mixed, out_proj_weight, out_proj_bias), None


RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    torch.layer_norm: lambda x, shape, w=None, b=None, eps=1e-5, *_, **__: layer_norm(x, shape, w, b, eps),
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.linear: linear,
    F.gelu: gelu,
    torch.softmax: softmax,
    F.softmax: lambda x, dim=-1, **_: softmax(x, dim),
    Tensor.softmax: softmax,
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: multi_head_attention,
}


class _Rules(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return RULES.get(func, func)(*args, **(kwargs or {}))


@contextmanager
def dual_rules() -> Iterator[None]:
    """Route the functions in ``RULES`` through this module."""
    with _Rules():
        yield
