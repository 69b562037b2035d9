"""The flat parameter vector: one contiguous tensor for all parameters of a model.

A training state is three such vectors (parameters and two moments for Adam), so that an optimizer step, its
derivative, a digest and a file are one elementwise pass each, however many small tensors the model has. On small
models this is most of the speed: an Adam update over 60 tensors is 600 kernel launches, over one vector it is 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor, nn

Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class ParameterLayout:
    """Names and shapes of the parameters, in the order in which they lie in the flat vector."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, model: nn.Module) -> ParameterLayout:
        """Lay out the trainable parameters of ``model`` in their registration order (tied ones once)."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return cls(tuple(name for name, _ in named), tuple(p.shape for _, p in named))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Elements of each parameter."""
        return tuple(shape.numel() for shape in self.shapes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Position of each parameter's first element; one entry more than names, the last is the length."""
        return (0, *accumulate(self.sizes))

    @property
    def length(self) -> int:
        """Elements of the flat vector."""
        return self.offsets[-1]

    def flatten(self, params: Params) -> Tensor:
        """Copy named parameters into one vector of shape (length,)."""
        return torch.cat([params[name].reshape(-1) for name in self.names])

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Views of ``theta`` (shape (length,)) by name; derivatives of both modes pass through."""
        pieces = theta.split(self.sizes)
        return {n: p.view(s) for n, p, s in zip(self.names, pieces, self.shapes, strict=True)}

    def place_of(self, name: str) -> int:
        """Position of a parameter's first element in the flat vector."""
        return self.offsets[self.names.index(name)]

    def name_at(self, position: int) -> str:
        """Name of the parameter that owns element ``position``, for error messages."""
        for name, end in zip(self.names, self.offsets[1:], strict=True):
            if position < end:
                return name
        raise IndexError(f"position {position} lies outside the {self.length} parameters of this layout")

    def matrix_mask(self, like: Tensor) -> Tensor:
        """1 where weight decay usually applies (parameters of two or more dimensions), 0 for gains and biases."""
        sized = zip(self.sizes, self.shapes, strict=True)
        return torch.cat([like.new_full((n,), float(len(shape) >= 2)) for n, shape in sized])
