"""What every unit of a run needs: the catalog, the pool, the tasks and the recipe, built once in each process.

Tasks are handed a run directory, not tensors; they open the workbench of that directory here. What is trained on, and
what that is, the two kinds know: pairs for a CLIP (`pair_workbench`), texts for a language model (`text_workbench`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from mgd_core.determinism import deterministic
from mgd_core.errors import UserError
from mgd_core.layout import ParameterLayout
from mgd_core.learner import Batch, Learner
from mgd_core.optimizers import Adam, Optimizer, Sgd, State
from mgd_core.order import DataOrder
from mgd_core.precision import PRECISIONS
from mgd_core.schedules import constant, one_cycle, warmup_cosine
from mgd_core.windows import WindowedOrder
from tasks.artefacts import digest
from tasks.catalog import BaseCatalog
from tasks.pools import PoolRecord, load_pool
from tasks.roles import Roles
from tasks.runs import Run
from tasks.tables import read_parquet
from tasks.uids import Bytes16
from tasks.units import PoolError

Counts = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int64]


class Score(Protocol):
    """How a model does on a task: loss (nats), accuracy (share), and the temperature it was measured at, if any."""

    @property
    def loss(self) -> float: ...  # noqa: D102
    @property
    def accuracy(self) -> float: ...  # noqa: D102
    @property
    def scale(self) -> float | None: ...  # noqa: D102


class Task(Protocol):
    """A target, held-out target or test, bound to a learner's model."""

    @property
    def size(self) -> int:
        """Samples of it."""

    def target(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """phi(theta) and its gradient (P,)."""

    def score(self, theta: torch.Tensor) -> Score:
        """Loss and accuracy."""

    def metrics(self, theta: torch.Tensor) -> dict[str, float]:
        """All that is measured, by metric."""


@dataclass(frozen=True)
class Workbench(ABC):
    """An open run: everything that its trainings share. ``uids`` (n,): the pool, sorted."""

    run: Run
    catalog: BaseCatalog
    pool: PoolRecord
    uids: Bytes16

    @abstractmethod
    def learner(self, counts: Counts, seed: int, round: int = 0) -> tuple[Learner, State]:
        """The recipe on a training multiset, and its first state; a pure function of its arguments."""

    @abstractmethod
    def batches(self, parts: Sequence[Ids]) -> Iterator[Batch]:
        """One pass over parts of the pool, by positions; each row of weight 1. Read ahead."""

    @abstractmethod
    def tasks(self, learner: Learner) -> Roles[Task]:
        """Target, held-out target and tests for a learner's model, in the precision of its parameters."""

    @abstractmethod
    def task_sizes(self) -> Roles[int]:
        """Samples of each task."""

    @abstractmethod
    def ranking(self, subset: str) -> npt.NDArray[np.float64]:
        """Scores (n,) by which a rival of the comparison picks samples: those of the lowest."""

    def notes(self) -> list[str]:
        """Sentences on what a person should know of pool and tasks before training."""
        return []

    def __len__(self) -> int:
        return len(self.uids)

    def optimizer(self, layout: ParameterLayout, theta: torch.Tensor) -> Optimizer:
        """The catalog's optimizer for parameters laid out so."""
        o = self.catalog.learner
        decay = {"weight_decay": o.weight_decay, "clip_norm": o.clip_norm, "decay_mask": layout.matrix_mask(theta)}
        if o.optimizer == "sgd":
            return Sgd(momentum=o.momentum, **decay)  # type: ignore[arg-type]
        return Adam(b1=o.b1, b2=o.b2, eps=o.eps, eps_root=o.eps_root, **decay)  # type: ignore[arg-type]

    def rates(self) -> torch.Tensor:
        """The catalog's learning rates (steps,)."""
        o = self.catalog.learner
        if o.schedule == "constant":
            return constant(o.steps, o.learning_rate, o.warmup)
        return (warmup_cosine if o.schedule == "cosine" else one_cycle)(o.steps, o.learning_rate, o.warmup)

    def to_device(self, batch: Batch) -> Batch:
        """The batch on the catalog's device."""
        device = self.catalog.runtime.device
        rows = tuple(x.to(device) for x in batch.rows)
        return Batch(rows, batch.ids.to(device), batch.weights.to(device))


class TooFewSamples(UserError, ValueError):
    """A training multiset has fewer samples than a batch."""


def data_order(bench: Workbench, counts: Counts, seed: int, round: int) -> DataOrder | WindowedOrder:
    """The order of a training multiset's batches: from everywhere in the pool, or window by window.

    Raises:
        TooFewSamples: it has fewer samples than a batch.
    """
    o = bench.catalog.learner
    distinct = int((counts > 0).sum())
    if distinct < o.batch:
        raise TooFewSamples(
            f"catalog '{bench.catalog.name}': {distinct:,} different samples are to be trained on, and a batch needs "
            f"{o.batch:,} (learner.batch). Use a smaller batch, or stop dropping samples earlier (descent.rounds, p)"
        )
    if o.window is None:
        return DataOrder(counts, o.batch, o.steps, seed, round)
    return WindowedOrder(counts, pool_shards(bench.pool.samples_path), o.window, o.batch, o.steps, seed, round)


@contextmanager
def opened(directory: Path) -> Iterator[Workbench]:
    """The workbench of a run directory, under its catalog's threads, determinism and precision; restored on exit."""
    run = Run.load(directory)
    runtime = run.catalog.runtime
    with deterministic(runtime.threads), PRECISIONS[runtime.precision].switched():
        yield _workbench(Path(directory), digest(run.record))


@lru_cache(maxsize=2)
def _workbench(directory: Path, record: str) -> Workbench:
    """The workbench of a run, by the digest of its record: tests and comparison of a run may change."""
    from tasks.catalog import Catalog
    from tasks.pair_workbench import open_pairs
    from tasks.text_workbench import open_texts

    run = Run.load(directory)
    pool = load_pool(run.pool_directory)
    if pool is None:
        raise PoolError(f"the pool of run {run.id} is gone from {run.pool_directory}; run `mgd curate` again")
    return open_pairs(run, pool) if isinstance(run.catalog, Catalog) else open_texts(run, pool)


@lru_cache(maxsize=2)
def pool_shards(samples: Path) -> Ids:
    """Number of each sample's shard (n,), in the order of their names."""
    column = read_parquet(samples, columns=["shard"])["shard"]
    encoded = column.combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(encoded.dictionary.to_pylist()))
    return rank[encoded.indices.to_numpy()].astype(np.int64)
