"""What every unit of a run needs: the catalog, the pool, the tasks and the recipe, built once in each process.

Tasks are handed a run directory, not tensors; they open the workbench of that directory here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from mgd_core.clip import ClipObjective, build_clip, initial_parameters
from mgd_core.determinism import deterministic
from mgd_core.layout import ParameterLayout
from mgd_core.learner import Batch, Learner
from mgd_core.loader import Loader
from mgd_core.optimizers import Adam, Optimizer, Sgd, State
from mgd_core.order import DataOrder
from mgd_core.precision import PRECISIONS, Autocast
from mgd_core.schedules import constant, one_cycle, warmup_cosine
from mgd_core.windows import WindowedOrder
from mgd_core.zeroshot import ZeroShotTask
from tasks.artefacts import read_json
from tasks.catalog import Catalog, CatalogError
from tasks.held_shards import HeldShards
from tasks.pairs import Ids, Images, Pairs, load_pairs
from tasks.pools import PoolRecord, load_pool
from tasks.runs import Run
from tasks.sources import reader_of
from tasks.vocabulary import Vocabulary, full_vocabulary, used_vocabulary
from tasks.zero_shot import TaskData, load_targets

Counts = npt.NDArray[np.int64]
BUILD_OPTIONS = ("init_logit_scale", "quick_gelu")  # of a model config, beside its towers
WINDOWS_HELD = 3  # the one that is trained on, the next, and the one before, which other threads may still read
ROUND_STREAM = 1_000  # weights of round r are drawn from seed * ROUND_STREAM + r


@dataclass(frozen=True)
class Workbench:
    """An open run: everything that its trainings share."""

    run: Run
    catalog: Catalog
    pool: PoolRecord
    pairs: Pairs
    tasks: dict[str, TaskData]
    vocabulary: Vocabulary
    model_config: dict[str, dict[str, object]]

    def learner(self, counts: Counts, seed: int, round: int = 0) -> tuple[Learner, State]:
        """The recipe on a training multiset, and its first state; a pure function of its arguments."""
        options = self.catalog.learner
        text = {**self.model_config["text_cfg"], "vocab_size": self.vocabulary.size}
        config, weights = self.model_config, seed * ROUND_STREAM + round
        others = {key: config[key] for key in BUILD_OPTIONS if key in config}
        model = build_clip(int(config["embed_dim"]), config["vision_cfg"], text, weights, **others)  # type: ignore[call-overload]
        model.to(self.catalog.runtime.device)
        layout = ParameterLayout.of(model)
        theta = initial_parameters(model, layout)
        optimizer = self._optimizer(layout, theta)
        objective = PRECISIONS[self.catalog.runtime.precision].around(ClipObjective(model))
        batches = self._training_batches(counts, seed, round)
        learner = Learner(objective, layout, optimizer, self._rates(), batches, options.chunk)
        return learner, optimizer.init(theta)

    def batches(self, parts: Sequence[Ids]) -> Iterator[Batch]:
        """One pass over parts of the pool, by positions; each row of weight 1. Read ahead."""
        loader = self._loader(lambda number: parts[number])
        loader.expect(range(len(parts)))
        return map(loader, range(len(parts)))

    def _training_batches(self, counts: Counts, seed: int, round: int) -> Loader:
        """The batches of a training: from everywhere in the pool, or window by window."""
        o = self.catalog.learner
        if o.window is None:
            full = DataOrder(counts, o.batch, o.steps, seed, round)
            return self._loader(lambda t: full[t])
        shards = _pool_shards(self.run.directory)
        order = WindowedOrder(counts, shards, o.window, o.batch, o.steps, seed, round)
        if self.pairs.streamed is None:
            return self._loader(lambda t: order[t])
        held = HeldShards(self.pairs.streamed, shards, counts > 0, WINDOWS_HELD * order.largest)

        def ids_of(t: int) -> Ids:
            held.expect(order.following(t).tolist())
            return order[t]

        return self._loader(ids_of, held)

    def _loader(self, ids_of: Callable[[int], Ids], images: Callable[[Ids], Images] | None = None) -> Loader:
        """Batches whose numbers stand for pool positions; ``images``: where pixels come from, if not from the pairs."""
        runtime, pixels = self.catalog.runtime, images or self.pairs.images
        return Loader(lambda t: self._read(ids_of(t), pixels), runtime.readers, runtime.batch_cache, self._to_device)

    def _read(self, ids: Ids, images: Callable[[Ids], Images]) -> Batch:
        pixels = torch.from_numpy(images(ids))
        return Batch((pixels, self._tokens[ids]), torch.from_numpy(ids), torch.ones(len(ids)))

    def _to_device(self, batch: Batch) -> Batch:
        device = self.catalog.runtime.device
        rows = tuple(x.to(device) for x in batch.rows)
        return Batch(rows, batch.ids.to(device), batch.weights.to(device))

    def zero_shot(self, learner: Learner) -> dict[str, ZeroShotTask]:
        """The catalog's tasks for a learner's model, in the precision of its parameters."""
        objective = learner.objective.objective if isinstance(learner.objective, Autocast) else learner.objective
        assert isinstance(objective, ClipObjective)
        temperature = self.catalog.targets.temperature
        return {
            name: data.bind(objective, learner.layout, self.vocabulary, temperature)
            for name, data in self.tasks.items()
        }

    @property
    def _tokens(self) -> torch.Tensor:
        return _pool_tokens(self.run.directory)

    def _rates(self) -> torch.Tensor:
        o = self.catalog.learner
        if o.schedule == "constant":
            return constant(o.steps, o.learning_rate, o.warmup)
        return (warmup_cosine if o.schedule == "cosine" else one_cycle)(o.steps, o.learning_rate, o.warmup)

    def _optimizer(self, layout: ParameterLayout, theta: torch.Tensor) -> Optimizer:
        o = self.catalog.learner
        decay = {"weight_decay": o.weight_decay, "clip_norm": o.clip_norm, "decay_mask": layout.matrix_mask(theta)}
        if o.optimizer == "sgd":
            return Sgd(momentum=o.momentum, **decay)  # type: ignore[arg-type]
        return Adam(b1=o.b1, b2=o.b2, eps=o.eps, eps_root=o.eps_root, **decay)  # type: ignore[arg-type]


@contextmanager
def opened(directory: Path) -> Iterator[Workbench]:
    """The workbench of a run directory, under its catalog's threads, determinism and precision; restored on exit."""
    run = Run.load(directory)
    runtime = run.catalog.runtime
    with deterministic(runtime.threads), PRECISIONS[runtime.precision].switched():
        yield _workbench(Path(directory))


@lru_cache(maxsize=2)
def _workbench(directory: Path) -> Workbench:
    run = Run.load(directory)
    catalog, pool = run.catalog, load_pool(run.pool_directory)
    if pool is None:
        raise FileNotFoundError(f"the pool of run {run.id} is gone from {run.pool_directory}; run `mgd curate` again")
    config = load_model_config(Path(catalog.model.config))
    size = int(config["vision_cfg"]["image_size"])  # type: ignore[call-overload]
    length = int(config["text_cfg"]["context_length"])  # type: ignore[call-overload]
    pairs = load_pairs(pool, size, catalog.runtime.decoded_disk)
    tasks = load_targets(catalog.targets, size, reader_of(pool.directory))
    texts = [*pairs.texts, *(text for task in tasks.values() for text in task.texts)]
    used = catalog.model.vocabulary == "used"
    vocabulary = used_vocabulary(texts, length) if used else full_vocabulary(length)
    return Workbench(run, catalog, pool, pairs, tasks, vocabulary, config)


@lru_cache(maxsize=2)
def _pool_shards(directory: Path) -> Ids:
    """Number of each sample's shard (n,), in the order of their names."""
    column = pq.read_table(_workbench(directory).pool.samples_path, columns=["shard"])["shard"]
    encoded = column.combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(encoded.dictionary.to_pylist()))
    return rank[encoded.indices.to_numpy()].astype(np.int64)


@lru_cache(maxsize=2)
def _pool_tokens(directory: Path) -> torch.Tensor:
    bench = _workbench(directory)
    return bench.vocabulary.tokens(bench.pairs.texts)


def load_model_config(path: Path) -> dict[str, dict[str, object]]:
    """An open_clip model config.

    Raises:
        CatalogError: missing, not JSON, or without one of the three parts that open_clip needs.
    """
    try:
        config: dict[str, dict[str, object]] = read_json(path)
    except (OSError, json.JSONDecodeError, ValueError) as error:
        raise CatalogError(f"{path}: cannot read the model config: {error}") from error
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing:
        raise CatalogError(f"{path}: not an open_clip model config, it lacks {', '.join(missing)}")
    return config
