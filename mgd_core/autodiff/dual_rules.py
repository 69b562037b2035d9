"""Rules for attention, and which functions go through which rules.

The engine takes one reverse pass over a forward-mode derivative. Inside ``dual_rules()`` the functions of
mgd_core.autodiff.layer_rules, and attention, go through forms that bear it. Outside a dual level the ordinary functions
run. ``plain_rules()`` and ``double_rules()`` are the fewer that one reverse pass and a double backward need: refusals,
attention by its definition, and for the latter the layers of mgd_core.autodiff.double_functions. Tests compare every
rule with PyTorch's in float64, and mgd_core.engine.examination compares once for every model what they make of it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from mgd_core.autodiff.layer_rules import (
    batch_norm,
    convolution,
    double_convolution,
    double_gelu,
    embedding,
    embedding_bag,
    functional_softmax,
    gelu,
    instance_norm,
    layer_norm,
    linear,
    native_batch_norm,
    raw_batch_norm,
    raw_embedding,
    softmax,
)
from mgd_core.autodiff.refusals import RefusedModel


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
        raise _drops(dropout_p)
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


def _drops(p: float) -> RefusedModel:
    return RefusedModel(f"attention drops at random (p={p}): a replayed step would differ; set dropout to 0")


MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def multi_head_attention(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
    """``F.multi_head_attention_forward`` for self-attention on (L, N, E), without weights in the output."""
    bound = MULTI_HEAD.bind(*arguments, **named)
    bound.apply_defaults()
    o = SimpleNamespace(**bound.arguments)
    query, num_heads = o.query, o.num_heads
    if o.training and o.dropout_p:
        raise RefusedModel(
            f"attention drops at random (p={o.dropout_p}): a replayed step would differ; set dropout to 0"
        )
    given = [x is not None for x in (o.bias_k, o.key_padding_mask, o.static_k, o.static_v)]
    extended = any(given) or o.add_zero_attn or o.need_weights or o.use_separate_proj_weight
    if extended or o.in_proj_weight is None or not (query is o.key and query is o.value) or query.ndim != 3:
        raise _OtherAttention(
            "this attention layer uses a form the engine has no derivative rule for (cross-attention, key padding, "
            "bias_k, or attention weights as an output); use plain self-attention"
        )
    length, n, width = query.shape
    q, k, v = (
        x.reshape(length, n * num_heads, width // num_heads).transpose(0, 1).view(n, num_heads, length, -1)
        for x in linear(query, o.in_proj_weight, o.in_proj_bias).chunk(3, dim=-1)
    )
    mask = None if o.is_causal else o.attn_mask
    if mask is not None:  # true is where this function may not look, and where attention may
        mask = ~mask if mask.dtype == torch.bool else mask
        mask = mask.view(n, num_heads, length, length) if mask.ndim == 3 and len(mask) > 1 else mask
    mixed = attention(q, k, v, mask, is_causal=o.is_causal)
    mixed = mixed.permute(2, 0, 1, 3).reshape(length, n, width)
    return linear(mixed, o.out_proj_weight, o.out_proj_bias), None


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
    torch.batch_norm: raw_batch_norm,
    torch.native_batch_norm: native_batch_norm,
    F.instance_norm: instance_norm,
    torch.instance_norm: instance_norm,
    F.embedding: embedding,
    torch.embedding: raw_embedding,
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
    F.softmax: functional_softmax,
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
