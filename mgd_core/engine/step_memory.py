"""What a reverse step takes of memory, counted without taking it: on PyTorch's `meta` device, which has shapes only.

The engine's largest moment is the curvature product (mgd_core.autodiff.derivatives), which holds the graph of one chunk
with its tangents: bytes are a + b x chunk. Two counts give a and b. Counted are tensors; what an operation takes
for itself while it runs, and what the allocator loses, is not, nor is autocast, which takes less. A function of shapes
and of PyTorch's version alone, so a recipe that is cut by it is the same on every machine.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mgd_core.autodiff.derivatives import curvature_product
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.errors import UserError

AROUND = 10
"""Vectors of P numbers that a step has besides: state, state after, adjoint (3 each), and the gradient."""
LEAST = 4
"""Rows of a batch that is cut at all."""
MULTIPLE = 8
"""Chunks are multiples of this, which GPUs are fond of."""


class TooLittleMemory(UserError, ValueError):
    """A step does not fit, however few rows are encoded at once."""


class Counted(TorchDispatchMode):
    """Bytes of the tensors that are made inside and still there: ``now``, and at most (``peak``)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self._count(one.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def bytes_of_step(objective: Objective, layout: ParameterLayout, theta: Tensor, rows: Rows, chunk: int) -> int:
    """Most bytes of a reverse step on ``rows``, ``chunk`` of them encoded at once; all tensors, and the model's
    parameters, are on `meta`."""
    weights, v = torch.ones(len(rows[0]), device="meta", dtype=theta.dtype), torch.empty_like(theta)
    with Counted() as counted:
        curvature_product(objective, layout, theta, v, rows, weights, chunk)
    around = AROUND * theta.numel() * theta.element_size()
    return counted.peak + around + sum(x.numel() * x.element_size() for x in rows)


def rows_within(memory: int, objective: Objective, layout: ParameterLayout, theta: Tensor, rows: Rows) -> int:
    """How many of the rows of a batch can be encoded at once in so many bytes: the batch, or a multiple of 8 (fewer
    where 8 do not fit). Everything is on `meta`.

    Raises:
        TooLittleMemory: not one.
    """
    batch = len(rows[0])
    few, many = max(1, batch // 4), max(2, batch // 2)
    if batch < LEAST:
        return batch
    small, large = (bytes_of_step(objective, layout, theta, rows, n) for n in (few, many))
    each = max(1, (large - small) // (many - few))
    fixed = small - each * few
    found = (memory - fixed) // each
    if found < 1:
        raise TooLittleMemory(
            f"a step with one row encoded at once takes {(fixed + each) / 2**30:,.1f} GiB, of which "
            f"{fixed / 2**30:,.1f} whatever is encoded; {memory / 2**30:,.1f} are allowed (learner.chunk_memory). "
            "Raise it, or take a smaller batch or model"
        )
    return batch if found >= batch else int(found // MULTIPLE * MULTIPLE or found)
