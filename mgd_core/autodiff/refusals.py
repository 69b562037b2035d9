"""What no model may do that is to be differentiated exactly, by rule: couple the rows of a batch, or leave to chance.

``check_modules`` looks at the layers alone and costs nothing: every :class:`mgd_core.training.learner.Learner` is
checked when it is made. What layers do not show (a function called in ``forward``) is found by
mgd_core.engine.examination, which runs the model on a few rows before a training.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from mgd_core.errors import UserError

FRACTIONAL = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


class RefusedModel(UserError, ValueError):
    """A model, or a loss, of which the engine would not give the exact metagradient; says why and what to do."""


def modules_of(value: Any, seen: set[int] | None = None) -> Iterator[nn.Module]:
    """Modules that an objective holds: as attributes, in lists and mappings of them, or in an objective within it."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from modules_of(item, seen)
    elif type(value).__module__ not in ("builtins", "torch", "numpy") and isinstance(vars_of(value), dict):
        yield from modules_of(vars_of(value), seen)


def vars_of(value: Any) -> dict[str, Any] | None:
    """Attributes of an object that is neither a class nor a module of Python."""
    return None if isinstance(value, type | ModuleType) else getattr(value, "__dict__", None)


def check_rowwise(model: nn.Module) -> None:
    """Refuse layers that make a row's features depend on other rows or on chance, in the mode they are in.

    Raises:
        RefusedModel: naming the layer and what to use instead.
    """
    for name, module in model.named_modules():
        _check_norm(name, module)
        _check_chance(name, module)


def _check_norm(name: str, module: nn.Module) -> None:
    if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
        raise RefusedModel(
            f"layer '{name}' is a {type(module).__name__}: it couples the rows of a batch, so features cannot be "
            "recomputed by chunks and the metagradient would be wrong. Use LayerNorm or GroupNorm instead."
        )
    if isinstance(module, _InstanceNorm):
        raise RefusedModel(
            f"layer '{name}' is a {type(module).__name__}, whose second derivative is wrong in PyTorch's forward "
            "mode. Use GroupNorm with one channel a group, which computes the same."
        )


def _check_chance(name: str, module: nn.Module) -> None:
    p = _drop_probability(module) if module.training else 0.0
    if p > 0:
        raise RefusedModel(
            f"layer '{name}' ({type(module).__name__}) drops activations at random (p={p}); a replayed step would "
            "differ. Set p to 0."
        )
    sloped = isinstance(module, nn.RReLU) and module.training and module.lower < module.upper
    if sloped or (isinstance(module, FRACTIONAL) and module._random_samples is None):
        raise RefusedModel(
            f"layer '{name}' ({type(module).__name__}) draws at random; a replayed step would differ. Use LeakyReLU "
            "for RReLU, and a pooling with fixed windows."
        )


def _drop_probability(module: nn.Module) -> float:
    """Of torch's dropouts, and of timm's and open_clip's kinds (DropPath, PatchDropout), which share no base class."""
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return float(module.dropout)
    if "drop" not in type(module).__name__.lower():
        return 0.0
    return next((float(getattr(module, key)) for key in ("p", "drop_prob", "prob") if hasattr(module, key)), 0.0)
