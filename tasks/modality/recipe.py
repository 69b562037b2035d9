"""Recipes: what is trained, on what, in which order, and what it is measured by; the same for every kind of data.

A kind says how its model is made, what its rows are and what is asked of it; the learner, the order of batches and how
they are read ahead are here. Units of work are handed a run directory, not tensors; they open its recipe
(`tasks.modality.registry.open_recipe`), once in each process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.autodiff.precision import PRECISIONS, Autocast
from mgd_core.errors import UserError
from mgd_core.models.clip import initial_parameters
from mgd_core.ranks.ranks import ALONE, Ranks
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.loader import Loader
from mgd_core.training.optimizers import Adam, Optimizer, Sgd, State
from mgd_core.training.order import DataOrder, generator
from mgd_core.training.schedules import constant, one_cycle, warmup_cosine
from mgd_core.training.spread import spread
from mgd_core.training.streams import ROUND_STREAM, TARGETS
from mgd_core.training.windows import WindowedOrder
from tasks.catalog.base import BaseCatalog
from tasks.catalog.files import CatalogError
from tasks.catalog.roles import Roles
from tasks.evaluation.encoders import Encoder
from tasks.pool.columns import columns_of
from tasks.pool.record import PoolRecord
from tasks.runs.run import Run, WorkDirectory
from tasks.tables.uids import Bytes16

Counts = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Order: TypeAlias = DataOrder | WindowedOrder | Mapping[int, Ids]
"""Positions (batch,) of each step."""
Own = TypeVar("Own", bound=Objective)
PROBE_BATCH = 512  # candidates encoded at once; changes results by rounding only
LEARNER_KNOBS = ("eps_root", "batch", "learning_rate", "warmup")


class Score(Protocol):
    """How a model does on a task: loss (nats), accuracy (share), and the temperature it was measured at, if any."""

    @property
    def loss(self) -> float: ...  # noqa: D102
    @property
    def accuracy(self) -> float: ...  # noqa: D102
    @property
    def scale(self) -> float | None: ...  # noqa: D102


class TargetTask(Protocol):
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

    def correct(self, theta: torch.Tensor) -> torch.Tensor:
        """Which samples are answered rightly (size,), bool: their share is the accuracy."""


class TooFewSamples(UserError, ValueError):
    """A training multiset has fewer samples than a batch."""


@dataclass(frozen=True)
class Recipe(ABC):
    """What a directory's trainings share: a model, an objective, n training samples by position, and the learner."""

    run: WorkDirectory
    catalog: Any
    ranks: Ranks = field(default=ALONE, kw_only=True)
    """Those that train together, of which this process is one: its learners have its rows and slices."""

    @abstractmethod
    def __len__(self) -> int:
        """n."""

    @abstractmethod
    def model(self, seed: int) -> nn.Module:
        """The model at its start; what is drawn of it is drawn from ``seed`` alone."""

    @abstractmethod
    def objective(self, model: nn.Module) -> Objective:
        """The loss of rows by the model."""

    @abstractmethod
    def rows(self, ids: Ids) -> Rows:
        """What the objective takes of samples, by positions; on any thread."""

    @property
    @abstractmethod
    def seed(self) -> int:
        """Seed of a training that names none."""

    def learner(self, counts: Counts | None = None, seed: int | None = None, round: int = 0) -> tuple[Learner, State]:
        """The recipe on a training multiset (None: every sample once), and its first state; a pure function of its
        arguments."""
        counts, seed = np.ones(len(self), np.int64) if counts is None else counts, self.seed if seed is None else seed
        options, runtime = self.catalog.learner, self.catalog.runtime
        model = self.model(self.model_seed(seed, round)).to(runtime.device)
        layout = ParameterLayout.of(model)
        theta = initial_parameters(model, layout)
        optimizer = self.optimizer(layout, theta)
        objective = PRECISIONS[runtime.precision].around(self.objective(model))
        batches = self.training_batches(counts, seed, round)
        learner = Learner(objective, layout, optimizer, self.rates(), batches, options.chunk)
        return spread(learner, optimizer.init(theta), self.ranks, own_batches=True)

    def model_seed(self, seed: int, round: int) -> int:
        """What a training's model is drawn from."""
        return seed * ROUND_STREAM + round

    def optimizer(self, layout: ParameterLayout, theta: torch.Tensor) -> Optimizer:
        """The catalog's optimizer for parameters laid out so; weight decay on matrices only."""
        o = self.catalog.learner
        shared: dict[str, Any] = {"weight_decay": o.weight_decay, "clip_norm": o.clip_norm}
        shared["decay_mask"] = layout.matrix_mask(theta)
        if o.optimizer == "sgd":
            return Sgd(momentum=o.momentum, **shared)
        return Adam(b1=o.b1, b2=o.b2, eps=o.eps, eps_root=o.eps_root, **shared)

    def rates(self) -> torch.Tensor:
        """The catalog's learning rates (steps,)."""
        o = self.catalog.learner
        if o.schedule == "constant":
            return constant(o.steps, o.learning_rate, o.warmup)
        return (warmup_cosine if o.schedule == "cosine" else one_cycle)(o.steps, o.learning_rate, o.warmup)

    def order(self, counts: Counts, seed: int, round: int) -> Order:
        """The batches of a training multiset, from everywhere among the samples.

        Raises:
            TooFewSamples: it has fewer samples than a batch.
        """
        o, distinct = self.catalog.learner, int((counts > 0).sum())
        if distinct < o.batch:
            raise TooFewSamples(
                f"catalog '{self.catalog.name}': {distinct:,} different samples are to be trained on, and a batch "
                f"needs {o.batch:,} (learner.batch). Use a smaller batch, or stop dropping samples earlier "
                "(descent.rounds, p)"
            )
        return DataOrder(counts, o.batch, o.steps, seed, round)

    def training_batches(self, counts: Counts, seed: int, round: int) -> Callable[[int], Batch]:
        """The batch of each step of a training, or what of it this rank has."""
        order = self.order(counts, seed, round)
        return self.loader(lambda t: self.batch(ids := self.own(order[t]), self.rows(ids)))

    def own(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What of a batch's rows (n, ...) falls to this rank."""
        return rows[self.ranks.share(len(rows))]

    def batches(self, parts: Sequence[Ids]) -> Iterator[Batch]:
        """One pass over parts of the samples, by positions; each row of weight 1. Read ahead."""
        return self.in_order(len(parts), lambda i: self.batch(parts[i], self.rows(parts[i])))

    def in_order(self, n: int, read: Callable[[int], Batch]) -> Iterator[Batch]:
        """Batches 0 to n - 1, each a function of its number, read ahead."""
        loader = self.loader(read)
        loader.expect(range(n))
        return map(loader, range(n))

    def loader(self, read: Callable[[int], Batch]) -> Loader:
        """Batches that are functions of their numbers, on the catalog's readers and device."""
        runtime = self.catalog.runtime
        return Loader(read, runtime.readers, runtime.batch_cache, self.to_device)

    def batch(self, ids: Ids, rows: Rows) -> Batch:
        """Rows of weight 1."""
        return Batch(rows, torch.from_numpy(ids), torch.ones(len(ids)))

    def to_device(self, batch: Batch) -> Batch:
        """The batch on the catalog's device."""
        device = self.catalog.runtime.device
        rows = tuple(x.to(device) for x in batch.rows)
        return Batch(rows, batch.ids.to(device), batch.weights.to(device))


@dataclass(frozen=True)
class PoolRecipe(Recipe):
    """The recipe of a curation. ``uids`` (n,): the pool, sorted; ``task_data``: the tasks, apart from any model."""

    run: Run
    catalog: BaseCatalog
    pool: PoolRecord
    uids: Bytes16
    task_data: Roles[Any]
    known_batches: Mapping[int, Ids] | None = field(default=None, kw_only=True)
    """Positions of the batches of some steps, where no other will be asked for; None: the order says them."""

    @abstractmethod
    def bind(self, data: Any, learner: Learner) -> TargetTask:
        """A task for a learner's model, in the precision of its parameters."""

    def targets(self, learner: Learner) -> Roles[TargetTask]:
        """Target, held-out target and tests for a learner's model."""
        return self.task_data.map(lambda _, data: self.bind(data, learner))

    def lowered(self, learner: Learner, round: int) -> TargetTask:
        """What a round lowers: the target, or the part of it that is drawn for this round."""
        data, options = self.task_data.target, self.catalog.descent
        if options.target_share < 1:
            draw, first, kept = generator(options.seed, TARGETS, round), 0, list[int]()
            for size in getattr(data, "sizes", [len(data)]):  # of many tasks the same share of each
                drawn = draw.permutation(size)[: max(1, int(options.target_share * size))]
                kept += (first + np.sort(drawn)).tolist()
                first += size
            data = data.only(kept)
        return self.bind(data, learner)

    @property
    def views(self) -> int:
        """Views of a candidate that a probe scores; its g is their mean."""
        return 1

    def candidates(self, ids: Ids, round: int, step: int) -> Iterator[Batch]:
        """Samples as a probe at a step of a round sees them, the ``views`` of each in a row."""
        return self.batches([ids[at : at + PROBE_BATCH] for at in range(0, len(ids), PROBE_BATCH)])

    def target_sizes(self) -> Roles[int]:
        """Samples of each task."""
        return self.task_data.map(lambda _, data: len(data))

    def notes(self) -> list[str]:
        """Sentences on what a person should know of pool and tasks before training."""
        return []

    def encoder(self, theta: torch.Tensor, identity: str) -> Encoder:
        """A trained model as evaluation sees it, known by ``identity``.

        Raises:
            CatalogError: evaluation sets mean nothing to it.
        """
        raise CatalogError(f"run {self.run.id} trains no CLIP: evaluation sets are put to CLIPs only")

    @property
    def said(self) -> object:
        """What tells it from other recipes on the same pool."""
        return self.catalog

    def turned(self, knob: str, value: Any) -> Self:
        """The recipe with a knob of the catalog's smoothness menu at another value.

        Raises:
            CatalogError: it has no such knob.
        """
        if knob in LEARNER_KNOBS:
            return self.with_sections(learner=self.catalog.learner.model_copy(update={knob: value}))
        if knob == "window_start":
            return self.with_sections(descent=self.catalog.descent.model_copy(update={knob: value}))
        raise CatalogError(
            f"smoothness.menu: '{knob}' is a knob of other models; this recipe has the learner's only: "
            + ", ".join((*LEARNER_KNOBS, "window_start"))
        )

    def with_sections(self, **sections: Any) -> Self:
        """The recipe with other sections of the catalog."""
        return replace(self, catalog=self.catalog.model_copy(update=sections))

    def order(self, counts: Counts, seed: int, round: int) -> Order:
        """The same, or window by window where the catalog says so, or what is known of it."""
        if self.known_batches is not None:
            return self.known_batches
        o, order = self.catalog.learner, super().order(counts, seed, round)
        if o.window is None:
            return order
        return WindowedOrder(counts, self.shards, o.window, o.batch, o.steps, seed, round)

    @property
    def shards(self) -> npt.NDArray[np.int32]:
        """Number of each sample's shard (n,), in the order of their names."""
        return columns_of(self.pool).shards

    @property
    def seed(self) -> int:
        """That of the rounds."""
        return self.catalog.descent.seed

    def __len__(self) -> int:
        return len(self.uids)


def objective_of(learner: Learner, kind: type[Own]) -> Own:
    """The objective of a learner, without what is around it."""
    objective = learner.objective.objective if isinstance(learner.objective, Autocast) else learner.objective
    assert isinstance(objective, kind)
    return objective
