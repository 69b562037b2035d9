"""Fast and reverse-differentiable forward-mode rules for the layers of a transformer.

The engine takes one reverse pass over a forward-mode derivative. PyTorch's own forward-mode rules get in the way:
softmax and logsumexp write in place (a reverse pass over them raises); the one of layer norm takes mean and variance
for constants (a reverse pass over it is silently wrong, torch 2.12); layer norm and GELU fall apart into dozens of
elementwise kernels; and the tangents of a convolution lose the memory layout that its fast kernels need. Inside
``dual_rules()`` these functions, and attention, go through the closed forms of mgd_core.dual_functions. Outside a dual
level the ordinary functions run.

``plain_rules()`` and ``double_rules()`` are the fewer that one reverse pass and a double backward need: refusals,
attention by its definition, and for the latter the layers of mgd_core.double_functions. Tests compare every rule with
PyTorch's in float64.

Under autocast (mgd_core.precision) the rules cast as PyTorch does around its own functions, value and tangent alike:
linear maps and convolutions to the lower precision, softmax and norms to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mgd_core.double_functions import Conv, Gelu
from mgd_core.dual_functions import ConvDual, ConvSettings, GeluDual, LayerNormDual, LinearDual, SoftmaxDual


def _dual(x: Tensor) -> tuple[Tensor, Tensor | None]:
    unpacked = fwd.unpack_dual(x)
    return unpacked.primal, unpacked.tangent


def _or_zero(tangent: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tangent is None else tangent


def _under_autocast(x: Tensor) -> bool:
    """Whether autocast holds for ``x``; it leaves float64 alone."""
    return torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64


def _lowered(x: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
    """Tensors in autocast's precision; as they are where it is off."""
    tensors = (x, *others)
    if not _under_autocast(x):
        return tensors
    dtype = torch.get_autocast_dtype(x.device.type)
    return tuple(None if t is None else t.to(dtype) for t in tensors)


def _raised(x: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
    """Tensors in float32 under autocast, which keeps sums of exponentials and squares there; else as they are."""
    tensors = (x, *others)
    return tuple(None if t is None else t.float() for t in tensors) if _under_autocast(x) else tensors


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Softmax along ``dim``."""
    primal, tangent = _raised(*_dual(x))
    if tangent is None:
        return torch.softmax(primal, dim)
    return fwd.make_dual(*SoftmaxDual.apply(primal, tangent, dim % primal.ndim))


def layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Layer norm over the last dimensions ``shape``, with or without gain and bias."""
    primal, tangent = _dual(x)
    if tangent is None:
        return F.layer_norm(x, shape, weight, bias, eps)
    d = math.prod(shape)
    flat, dflat = (z.reshape(*z.shape[: z.ndim - len(shape)], d) for z in _raised(primal, tangent))
    gain, shift = _affine(weight, flat.new_ones(d)), _affine(bias, flat.new_zeros(d))
    y, dy = LayerNormDual.apply(flat, dflat, *_raised(*gain), *_raised(*shift), eps)
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
    if dx is None or dw is None or x0.ndim < 2:
        return F.linear(x, weight, bias)
    return _applied(LinearDual, (x0, dx, w, dw), bias)


def _applied(
    layer: type[LinearDual] | type[ConvDual],
    tensors: tuple[Tensor, Tensor | None, Tensor, Tensor],
    bias: Tensor | None,
    *settings: ConvSettings,
) -> Tensor:
    """A layer of products on (x, dx, w, dw) and its bias, in autocast's precision where that is on."""
    b, db = (None, None) if bias is None else _dual(bias)
    x, *others = tensors
    cast = _lowered(x, *others, b, None if b is None else _or_zero(db, b))
    with torch.autocast(x.device.type, enabled=False):
        return fwd.make_dual(*layer.apply(*cast, *settings))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """GELU, exact or with the tanh approximation."""
    primal, tangent = _dual(x)
    if tangent is None:
        return F.gelu(x, approximate=approximate)
    return fwd.make_dual(*GeluDual.apply(primal, tangent, approximate))


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | list[int] = 1,
    padding: str | int | list[int] = 0,
    dilation: int | list[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv2d``; PyTorch's own rules for padding by name, and for weights that do not move."""
    (x0, dx), (w, dw) = _dual(x), _dual(weight)
    if dw is None or isinstance(padding, str) or x0.ndim != 4:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    settings = ConvSettings(_pair(stride), _pair(padding), _pair(dilation), groups)
    return _applied(ConvDual, (x0, dx, w, dw), bias, settings)


def double_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | list[int] = 1,
    padding: str | int | list[int] = 0,
    dilation: int | list[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv2d`` for double backward."""
    if isinstance(padding, str) or x.ndim != 4:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    settings = ConvSettings(_pair(stride), _pair(padding), _pair(dilation), groups)
    tensors = _lowered(x, weight, bias)
    with torch.autocast(x.device.type, enabled=False):
        return Conv.apply(*tensors, settings)


def _pair(value: int | list[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


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
    if dropout_p:
        raise ValueError(f"attention drops at random (p={dropout_p}): a replayed step would differ; set dropout to 0")
    if enable_gqa:  # a key and its value serve a group of consecutive queries
        group = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(group, dim=-3) for x in (key, value))
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


Rules = Mapping[Callable[..., Any], Callable[..., Any]]

PLAIN_RULES: Rules = {
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: multi_head_attention,
}
DUAL_RULES: Rules = {
    **PLAIN_RULES,
    F.layer_norm: layer_norm,
    torch.layer_norm: lambda x, shape, w=None, b=None, eps=1e-5, *_, **__: layer_norm(x, shape, w, b, eps),
    F.linear: linear,
    F.gelu: gelu,
    F.conv2d: convolution,
    torch.softmax: softmax,
    F.softmax: lambda x, dim=-1, **_: softmax(x, dim),
    Tensor.softmax: softmax,
}
DOUBLE_RULES: Rules = {
    **PLAIN_RULES,
    F.gelu: lambda x, approximate="none": Gelu.apply(x, approximate),
    F.conv2d: double_convolution,
}


class _Rules(TorchFunctionMode):
    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.rules.get(func, func)(*args, **(kwargs or {}))


def plain_rules() -> AbstractContextManager[Any]:
    """Refusals and attention by its definition: for one reverse pass."""
    return _Rules(PLAIN_RULES)


def dual_rules() -> AbstractContextManager[Any]:
    """All closed forms of this module: for forward mode, and a reverse pass over it."""
    return _Rules(DUAL_RULES)


def double_rules() -> AbstractContextManager[Any]:
    """For a graph that is differentiated twice."""
    return _Rules(DOUBLE_RULES)
