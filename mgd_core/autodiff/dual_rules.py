"""Fast and reverse-differentiable forward-mode rules for the layers of a transformer.

The engine takes one reverse pass over a forward-mode derivative. PyTorch's own forward-mode rules get in the way:
softmax and logsumexp write in place (a reverse pass over them raises); the one of layer norm takes mean and variance
for constants (a reverse pass over it is silently wrong, torch 2.12); layer norm and GELU fall apart into dozens of
elementwise kernels; and the tangents of a convolution lose the memory layout that its fast kernels need. Inside
``dual_rules()`` these functions, and attention, go through the closed forms of mgd_core.autodiff.dual_functions.
Outside a dual level the ordinary functions run.

``plain_rules()`` and ``double_rules()`` are the fewer that one reverse pass and a double backward need: refusals,
attention by its definition, and for the latter the layers of mgd_core.autodiff.double_functions. Tests compare every
rule with PyTorch's in float64, and mgd_core.engine.examination compares once for every model what they make of it.

A rule takes its arguments by the names that PyTorch has for them, since models call functions either way. What PyTorch
decomposes by itself never comes here: ``F.cross_entropy`` takes the log-softmax of PyTorch, not ours.

Under autocast (mgd_core.autodiff.precision) the rules cast as PyTorch does around its own functions, value and tangent
alike: linear maps and convolutions to the lower precision, softmax and norms to float32.
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
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from mgd_core.autodiff.double_functions import Conv, Gelu
from mgd_core.autodiff.dual_functions import ConvDual, ConvSettings, GeluDual, LayerNormDual, LinearDual, SoftmaxDual
from mgd_core.autodiff.refusals import RefusedModel


def _dual(x: Tensor) -> tuple[Tensor, Tensor | None]:
    unpacked = fwd.unpack_dual(x)
    return unpacked.primal, unpacked.tangent


def or_zero(tangent: Tensor | None, like: Tensor) -> Tensor:
    """A derivative; PyTorch says None where it is zero."""
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


def softmax(input: Tensor, dim: int = -1, dtype: torch.dtype | None = None) -> Tensor:
    """Softmax along ``dim``, in ``dtype`` where that is given."""
    x = input if dtype is None else input.to(dtype)
    primal, tangent = _raised(*_dual(x))
    if tangent is None:
        return torch.softmax(primal, dim)
    return fwd.make_dual(*SoftmaxDual.apply(primal, tangent, dim % primal.ndim))


def _functional_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    return F.softmax(input, dim, _stacklevel, dtype) if dim is None else softmax(input, dim, dtype)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of ``weight``. That of ``padding_idx`` gets no gradient, so it has no tangent; PyTorch's has one.

    ``sparse`` changes how the gradient is stored, not its numbers: it is dense here.
    """
    check_embedding(max_norm, scale_grad_by_freq)
    primal, tangent = _dual(weight)
    y = F.embedding(input, primal, padding_idx)
    if tangent is None:
        return y
    dy = F.embedding(input, tangent, padding_idx)
    if padding_idx is not None:
        dy = dy.masked_fill((input == padding_idx % weight.shape[0]).unsqueeze(-1), 0.0)
    return fwd.make_dual(y, dy)


def _raw_embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """``torch.embedding``, to which a negative ``padding_idx`` is none."""
    return embedding(indices, weight, padding_idx if padding_idx >= 0 else None, scale_grad_by_freq=scale_grad_by_freq)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    *others: Any,
    **named: Any,
) -> Tensor:
    """PyTorch's own, where it computes a function of its arguments."""
    check_embedding(max_norm, scale_grad_by_freq)
    return F.embedding_bag(input, weight, offsets, None, norm_type, False, mode, False, *others, **named)


def check_embedding(max_norm: float | None, scale_grad_by_freq: bool) -> None:
    """Refuse the two settings under which training does not follow the gradient of the loss."""
    if max_norm is not None:
        raise RefusedModel(
            f"an embedding has max_norm={max_norm}: it rescales its weights in place whenever it is called, outside "
            "of the optimizer, so a step is no function of its state. Leave max_norm out; weight decay bounds norms."
        )
    if scale_grad_by_freq:
        raise RefusedModel(
            "an embedding has scale_grad_by_freq: it divides gradients by how often a token stands in the batch, which "
            "couples its rows and is the gradient of no loss. Leave it out."
        )


def layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """Layer norm over the last dimensions ``normalized_shape``, with or without gain and bias."""
    primal, tangent = _dual(input)
    if tangent is None and not any(p is not None and _dual(p)[1] is not None for p in (weight, bias)):
        return F.layer_norm(input, normalized_shape, weight, bias, eps)
    tangent = or_zero(tangent, primal)  # of pixels, say: PyTorch's rule is wrong about the gain's tangent as well
    d = math.prod(normalized_shape)
    flat, dflat = (z.reshape(*z.shape[: z.ndim - len(normalized_shape)], d) for z in _raised(primal, tangent))
    gain, shift = _affine(weight, flat.new_ones(d)), _affine(bias, flat.new_zeros(d))
    y, dy = LayerNormDual.apply(flat, dflat, *_raised(*gain), *_raised(*shift), eps)
    return fwd.make_dual(y.view(primal.shape), dy.view(primal.shape))


def _affine(parameter: Tensor | None, default: Tensor) -> tuple[Tensor, Tensor]:
    """A gain or bias and its tangent, as vectors; ``default`` where the layer has none."""
    primal, tangent = (default, None) if parameter is None else _dual(parameter.reshape(-1))
    return primal, or_zero(tangent, primal)


COUPLING = "batch norm in training mode couples the rows of a batch: use LayerNorm or GroupNorm instead"


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch norm with frozen statistics, or of a single row: weight standardisation calls it so. Else it is refused."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if input.shape[0] > 1 or running_mean is not None or running_var is not None:
        raise RefusedModel(COUPLING)
    spatial = list(range(2, input.ndim))
    centred = input - input.mean(spatial, keepdim=True)
    y = centred * (centred.square().mean(spatial, keepdim=True) + eps).rsqrt()
    for parameter, apply in ((weight, torch.mul), (bias, torch.add)):
        y = y if parameter is None else apply(y, parameter.view(1, -1, *(1 for _ in spatial)))
    return y


def _raw_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """``torch.batch_norm``."""
    return batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    *others: Any,
    **named: Any,
) -> Any:
    """``torch.native_batch_norm``."""
    if training:
        raise RefusedModel(COUPLING)
    return torch.native_batch_norm(input, weight, bias, running_mean, running_var, training, *others, **named)


def instance_norm(input: Tensor, *others: Any, **named: Any) -> Tensor:
    """Refused: PyTorch's reverse pass over its tangent takes the statistics for constants, without a word."""
    raise RefusedModel(
        "instance norm has no correct second derivative in PyTorch's forward mode; use GroupNorm with one channel a "
        "group, which computes the same"
    )


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Affine map of the last dimension."""
    (x0, dx), (w, dw) = _dual(input), _dual(weight)
    if dx is None or dw is None or x0.ndim < 2:
        return F.linear(input, weight, bias)
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
    cast = _lowered(x, *others, b, None if b is None else or_zero(db, b))
    with torch.autocast(x.device.type, enabled=False):
        return fwd.make_dual(*layer.apply(*cast, *settings))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """GELU, exact or with the tanh approximation."""
    primal, tangent = _dual(input)
    if tangent is None:
        return F.gelu(input, approximate=approximate)
    return fwd.make_dual(*GeluDual.apply(primal, tangent, approximate))


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | list[int] = 1,
    padding: str | int | list[int] = 0,
    dilation: int | list[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv2d``; PyTorch's own rules for padding by name, and for weights that do not move."""
    (x0, dx), (w, dw) = _dual(input), _dual(weight)
    if dw is None or isinstance(padding, str) or x0.ndim != 4:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    settings = ConvSettings(_pair(stride), _pair(padding), _pair(dilation), groups)
    return _applied(ConvDual, (x0, dx, w, dw), bias, settings)


def double_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | list[int] = 1,
    padding: str | int | list[int] = 0,
    dilation: int | list[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv2d`` for double backward."""
    if isinstance(padding, str) or input.ndim != 4:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    settings = ConvSettings(_pair(stride), _pair(padding), _pair(dilation), groups)
    tensors = _lowered(input, weight, bias)
    with torch.autocast(input.device.type, enabled=False):
        return Conv.apply(*tensors, settings)


def double_gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``F.gelu`` for double backward."""
    return Gelu.apply(input, approximate)


def _pair(value: int | list[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value) * (2 // len(value))


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
        raise RefusedModel(f"attention drops at random (p={dropout_p}): a replayed step would differ; set dropout to 0")
    if enable_gqa:  # a key and its value serve a group of consecutive queries
        group = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(group, dim=-3) for x in (key, value))
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        keep = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~keep, float("-inf"))
    if attn_mask is None:
        return softmax(scores, -1) @ value
    masked = attn_mask.dtype == torch.bool
    shut = ~attn_mask if masked else attn_mask == float("-inf")
    closed = shut.all(-1, keepdim=True)  # queries that may look nowhere: PyTorch gives them 0
    if closed.device.type == "cpu" and not closed.any():  # elsewhere the answer would have to be waited for
        scores = scores.masked_fill(shut, float("-inf")) if masked else scores + attn_mask
        return softmax(scores, -1) @ value
    mask = shut & ~closed if masked else attn_mask.masked_fill(closed, 0.0)
    scores = scores.masked_fill(mask, float("-inf")) if masked else scores + mask
    return (softmax(scores, -1) @ value).masked_fill(closed, 0.0)


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
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``F.multi_head_attention_forward`` for self-attention on (L, N, E), without weights in the output."""
    if training and dropout_p:
        raise RefusedModel(f"attention drops at random (p={dropout_p}): a replayed step would differ; set dropout to 0")
    extended = bias_k is not None or add_zero_attn or key_padding_mask is not None or static_k is not None
    extended = extended or static_v is not None or need_weights or use_separate_proj_weight
    if extended or in_proj_weight is None or not (query is key and key is value) or query.ndim != 3:
        raise _OtherAttention(
            "this attention layer uses a form the engine has no derivative rule for (cross-attention, key padding, "
            "bias_k, or attention weights as an output); use plain self-attention"
        )
    length, n, width = query.shape
    q, k, v = (
        x.reshape(length, n * num_heads, width // num_heads).transpose(0, 1).view(n, num_heads, length, -1)
        for x in linear(query, in_proj_weight, in_proj_bias).chunk(3, dim=-1)
    )
    if is_causal or attn_mask is None:
        mask = None
    else:  # true is where this function may not look, and where attention may
        mask = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask
        mask = mask.view(n, num_heads, length, length) if mask.ndim == 3 and len(mask) > 1 else mask
    mixed = attention(q, k, v, mask, is_causal=is_causal)
    mixed = mixed.permute(2, 0, 1, 3).reshape(length, n, width)
    return linear(mixed, out_proj_weight, out_proj_bias), None


class _OtherAttention(RefusedModel):
    """A form of multi-head attention that forward mode has no rule for."""


def any_multi_head_attention(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
    """``F.multi_head_attention_forward`` in all its forms, by PyTorch's own where :func:`multi_head_attention` is not
    enough: it can be differentiated twice by double backward."""
    try:
        return multi_head_attention(*arguments, **named)
    except _OtherAttention:
        with sdpa_kernel(SDPBackend.MATH):
            return F.multi_head_attention_forward(*arguments, **named)


Rules = Mapping[Callable[..., Any], Callable[..., Any]]

PLAIN_RULES: Rules = {
    F.batch_norm: batch_norm,
    torch.batch_norm: _raw_batch_norm,
    torch.native_batch_norm: _native_batch_norm,
    F.instance_norm: instance_norm,
    torch.instance_norm: instance_norm,
    F.embedding: embedding,
    torch.embedding: _raw_embedding,
    F.embedding_bag: embedding_bag,
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: any_multi_head_attention,
}
DUAL_RULES: Rules = {
    **PLAIN_RULES,
    F.multi_head_attention_forward: multi_head_attention,
    F.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    F.linear: linear,
    F.gelu: gelu,
    F.conv2d: convolution,
    torch.softmax: softmax,
    F.softmax: _functional_softmax,
    Tensor.softmax: softmax,
}
DOUBLE_RULES: Rules = {**PLAIN_RULES, F.gelu: double_gelu, F.conv2d: double_convolution}


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
