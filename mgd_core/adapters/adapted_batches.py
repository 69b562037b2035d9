"""A DataLoader as the engine reads batches: any step at any time, the same rows each time.

A loader is an iterator, and a reverse sweep goes back. So the order of all epochs is drawn once, as iterating over the
loader would draw it (generators are set back afterwards), and a step's items are read through the dataset and its
``collate_fn`` whenever they are asked for. ``Batch.rows`` are the tensors of what ``collate_fn`` returns, in the order
in which they stand there.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mgd_core.autodiff.objective import Rows
from mgd_core.errors import UserError
from mgd_core.training.determinism import ambient_rng
from mgd_core.training.learner import Batch

Order = list[list[int]]
"""Positions in the dataset, for each step."""


class RefusedData(UserError, ValueError):
    """A DataLoader, or a dataset, whose batches cannot be read again as they were."""


class LoaderBatches:
    """The batches of ``epochs`` passes over ``loader``, for :class:`mgd_core.training.learner.Learner`.

    Raises:
        RefusedData: the order or the items are not the same each time, or a batch is not made of rows.
    """

    def __init__(self, loader: DataLoader[Any], epochs: int, like: Tensor, seed: int | None = None) -> None:
        """``like``: has the device of rows, and the dtype and device of weights. ``seed``: each step is read with the
        ambient generators set by (seed, step), so that random augmentations come again."""
        self.size = _checked_size(loader, epochs)
        self.loader, self.like, self.seed = loader, like, seed
        self.order = _order(loader, epochs)
        if not self.order:
            raise RefusedData(f"{epochs} epochs of this DataLoader have no batch: the dataset is smaller than one.")
        self._check_positions()
        self.template = self._read(0)
        self.names = [name for name, _ in _tensors(self.template)]
        self._check_same()

    def __call__(self, t: int) -> Batch:
        """The batch of step ``t``."""
        ids = torch.tensor(self.order[t], dtype=torch.int64, device=self.like.device)
        return Batch(self._rows(t), ids, self.like.new_ones(len(ids)))

    def as_collated(self, rows: Rows) -> Any:
        """``rows`` in the shape that ``collate_fn`` gives a batch."""
        return _rebuilt(self.template, iter(rows))

    def _rows(self, t: int) -> Rows:
        named, n = list(_tensors(self._read(t))), len(self.order[t])
        if [name for name, _ in named] != self.names:
            raise RefusedData(
                f"the batch of step {t} is made of {[x for x, _ in named]}, that of step 0 of {self.names}."
            )
        for name, x in named:
            if not x.ndim or len(x) != n:
                raise RefusedData(
                    f"{name} of step {t} has shape {tuple(x.shape)} for {n} examples: every tensor of a batch needs "
                    "one row for each example (collate_fn may drop none, and add no number of its own)."
                )
        return tuple(x.to(self.like.device) for _, x in named)

    def _read(self, t: int) -> Any:
        if self.seed is None:
            return self._collated(self.order[t])
        with ambient_rng():
            _seed_ambient((self.seed, t))
            return self._collated(self.order[t])

    def _collated(self, positions: Sequence[int]) -> Any:
        dataset: Any = self.loader.dataset
        at_once = getattr(dataset, "__getitems__", None)  # as torch's own fetcher prefers it
        items = at_once(positions) if at_once else [dataset[i] for i in positions]
        return self.loader.collate_fn(items)

    def _check_positions(self) -> None:
        for t, positions in enumerate(self.order):
            wrong = [i for i in positions if not isinstance(i, int) or not 0 <= i < self.size]
            if wrong:
                raise RefusedData(
                    f"the sampler asks for {wrong[0]!r} at step {t}; examples are counted 0 .. {self.size - 1}, by the "
                    "length of the dataset."
                )

    def _check_same(self) -> None:
        for t in {0, len(self.order) - 1}:
            once, again = self._rows(t), self._rows(t)
            for name, a, b in zip(self.names, once, again, strict=True):
                if a.shape != b.shape or not bool(((a == b) | ((a != a) & (b != b))).all()):
                    raise RefusedData(
                        f"{name} of step {t} is another when it is read again: the dataset or its collate_fn draws at "
                        "random, and a replayed step would differ from the first. Give seed=, by which torch's, "
                        "numpy's and Python's ambient generators are set for every step, or leave augmentation out. (A "
                        "generator of the dataset's own is not reached by it: make it anew in each __getitem__.)"
                    )


def _checked_size(loader: DataLoader[Any], epochs: int) -> int:
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset):
        raise RefusedData(
            f"{type(dataset).__name__} is an IterableDataset: its items cannot be read again in another order, as a "
            "reverse sweep does. Use a map-style dataset (__getitem__ and __len__)."
        )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise RefusedData(f"{type(dataset).__name__} needs __len__ and __getitem__: a gradient is given per position.")
    if loader.batch_sampler is None:
        raise RefusedData("this DataLoader makes no batches (batch_size=None): give a batch_size or a batch_sampler.")
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise RefusedData(f"{type(loader).__name__} iterates in its own way: give the DataLoader that it is made from.")
    if epochs < 1:
        raise RefusedData(f"a training has at least one epoch; got epochs={epochs}.")
    return len(dataset)


class _Positions(Dataset[int]):
    """Item i is i."""

    def __getitem__(self, i: int) -> int:
        return i


def _order(loader: DataLoader[Any], epochs: int) -> Order:
    """As a DataLoader draws it, which takes a number of the generator before the sampler does."""
    first, again = _drawn(loader, epochs, 0), _drawn(loader, 1, 1)
    if first[: len(again)] != again:
        raise RefusedData(
            "the order of this DataLoader is another each time: it is drawn from the ambient random state, or from one "
            "of the sampler's own. Give the DataLoader, or its sampler, generator=torch.Generator().manual_seed(0)."
        )
    return first


def _drawn(loader: DataLoader[Any], epochs: int, ambient: int) -> Order:
    source = DataLoader(_Positions(), batch_sampler=loader.batch_sampler, generator=loader.generator, collate_fn=list)
    assert loader.batch_sampler is not None
    with ambient_rng(), _set_back(loader):
        _seed_ambient((ambient,))
        later: Any = loader.batch_sampler if loader.persistent_workers else source  # such workers draw no number again
        drawn = [positions for epoch in range(epochs) for positions in (later if epoch else source)]
    return [[_as_int(i) for i in positions] for positions in drawn]


def _as_int(position: Any) -> Any:
    """Of an integer of numpy or a tensor of one; a key of another kind stays, and is refused."""
    try:
        return operator.index(position)
    except TypeError:
        return position


@contextmanager
def _set_back(loader: DataLoader[Any]) -> Iterator[None]:
    """Leaves the generators of a loader and its samplers as they were, so that the next epoch draws the same order."""
    holders = loader, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)
    held = [x for holder in holders for x in getattr(holder, "__dict__", {}).values()]
    found = [x for x in held if isinstance(x, torch.Generator)]
    states = [generator.get_state() for generator in found]
    try:
        yield
    finally:
        for generator, state in zip(found, states, strict=True):
            generator.set_state(state)


def _seed_ambient(key: tuple[int, ...]) -> None:
    number = int(np.random.SeedSequence(key).generate_state(1)[0])
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def _tensors(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a batch: a tensor, or tuples, lists and mappings of such."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _tensors(value, f"{name}[{key!r}]")
    elif isinstance(batch, tuple | list):
        for number, value in enumerate(batch):
            yield from _tensors(value, f"{name}[{number}]")
    else:
        raise RefusedData(
            f"{name} is of type {type(batch).__name__}: a batch is made of tensors, in tuples, lists or mappings. "
            "Leave the rest out in collate_fn."
        )


def _rebuilt(like: Any, rows: Iterator[Tensor]) -> Any:
    if isinstance(like, Tensor):
        return next(rows)
    if isinstance(like, Mapping):
        return {key: _rebuilt(value, rows) for key, value in like.items()}
    values = [_rebuilt(value, rows) for value in like]
    if isinstance(like, tuple):
        return type(like)(*values) if hasattr(like, "_fields") else tuple(values)
    return values
