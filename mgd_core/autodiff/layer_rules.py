"""Fast and reverse-differentiable forward-mode rules for the layers of a transformer.

PyTorch's own forward-mode rules get in the way of a reverse pass over them: softmax and logsumexp write in place (it
raises); the one of layer norm takes mean and variance for constants (it is silently wrong, torch 2.12); layer norm and
GELU fall apart into dozens of elementwise kernels; and the tangents of a convolution lose the memory layout that its
fast kernels need. Here they go through the closed forms of mgd_core.autodiff.dual_functions.

A rule takes its arguments by the names that PyTorch has for them, since models call functions either way. What PyTorch
decomposes by itself never comes here: ``F.cross_entropy`` takes the log-softmax of PyTorch, not ours.

Under autocast (mgd_core.autodiff.precision) the rules cast as PyTorch does around its own functions, value and tangent
alike: linear maps and convolutions to the lower precision, softmax and norms to float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch import Tensor

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


def functional_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """``F.softmax``, which may guess ``dim``."""
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


def raw_embedding(
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


def raw_batch_norm(
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


def native_batch_norm(
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


def convolution(input: Tensor, weight: Tensor, bias: Tensor | None = None, *how: Any, **named: Any) -> Tensor:
    """``F.conv2d``; PyTorch's own rules for padding by name, and for weights that do not move."""
    (x0, dx), (w, dw) = _dual(input), _dual(weight)
    settings = _settings(*how, **named)
    if dw is None or settings is None or x0.ndim != 4:
        return F.conv2d(input, weight, bias, *how, **named)
    return _applied(ConvDual, (x0, dx, w, dw), bias, settings)


def double_convolution(input: Tensor, weight: Tensor, bias: Tensor | None = None, *how: Any, **named: Any) -> Tensor:
    """``F.conv2d`` for double backward."""
    settings = _settings(*how, **named)
    if settings is None or input.ndim != 4:
        return F.conv2d(input, weight, bias, *how, **named)
    tensors = _lowered(input, weight, bias)
    with torch.autocast(input.device.type, enabled=False):
        return Conv.apply(*tensors, settings)


def _settings(
    stride: int | list[int] = 1, padding: str | int | list[int] = 0, dilation: int | list[int] = 1, groups: int = 1
) -> ConvSettings | None:
    """Of a convolution; None where its padding is named."""
    return None if isinstance(padding, str) else ConvSettings(_pair(stride), _pair(padding), _pair(dilation), groups)


def double_gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``F.gelu`` for double backward."""
    return Gelu.apply(input, approximate)


def _pair(value: int | list[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value) * (2 // len(value))
