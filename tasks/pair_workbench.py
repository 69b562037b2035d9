"""The workbench of image-text pairs: a CLIP, trained on pictures and captions, and its zero-shot tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mgd_core.clip import ClipObjective, initial_parameters
from mgd_core.layout import ParameterLayout
from mgd_core.learner import Batch, Learner
from mgd_core.loader import Loader
from mgd_core.optimizers import State
from mgd_core.precision import PRECISIONS, Autocast
from mgd_core.streams import ROUND_STREAM
from mgd_core.windows import WindowedOrder
from tasks.catalog import Catalog
from tasks.held_shards import HeldShards
from tasks.model_configs import Config, built_clip, load_model_config
from tasks.pairs import Images, Pairs, load_pairs
from tasks.pools import PoolRecord
from tasks.roles import Roles
from tasks.runs import Run
from tasks.sources import reader_of
from tasks.vocabulary import Vocabulary, full_vocabulary, used_vocabulary
from tasks.workbench import Counts, Ids, Task, Workbench, data_order, pool_shards
from tasks.zero_shot import TaskData, load_targets

WINDOWS_HELD = 3  # the one that is trained on, the next, and the one before, which other threads may still read


@dataclass(frozen=True)
class PairWorkbench(Workbench):
    """An open run on image-text pairs."""

    catalog: Catalog
    pairs: Pairs
    task_data: Roles[TaskData]
    vocabulary: Vocabulary
    model_config: Config

    def learner(self, counts: Counts, seed: int, round: int = 0) -> tuple[Learner, State]:
        """The recipe on a training multiset, and its first state; a pure function of its arguments."""
        options = self.catalog.learner
        model = built_clip(self.model_config, self.vocabulary.size, seed * ROUND_STREAM + round)
        model.to(self.catalog.runtime.device)
        layout = ParameterLayout.of(model)
        theta = initial_parameters(model, layout)
        optimizer = self.optimizer(layout, theta)
        objective = PRECISIONS[self.catalog.runtime.precision].around(ClipObjective(model))
        batches = self._training_batches(counts, seed, round)
        learner = Learner(objective, layout, optimizer, self.rates(), batches, options.chunk)
        return learner, optimizer.init(theta)

    def batches(self, parts: Sequence[Ids]) -> Iterator[Batch]:
        """One pass over parts of the pool, by positions; each row of weight 1. Read ahead."""
        loader = self._loader(lambda number: parts[number])
        loader.expect(range(len(parts)))
        return map(loader, range(len(parts)))

    def tasks(self, learner: Learner) -> Roles[Task]:
        """The catalog's zero-shot tasks for a learner's model."""
        temperature = self.catalog.targets.temperature
        bound = clip_of(learner), learner.layout, self.vocabulary, temperature
        return self.task_data.map(lambda _, data: data.bind(*bound))

    def ranking(self, subset: str) -> npt.NDArray[np.float64]:
        """Losses (`loss_filter`), or cosines with their sign turned (`own_clip_filter`), by round 0's model."""
        from tasks.pair_rivals import pool_scores

        losses, cosines = pool_scores(self)
        return losses if subset == "loss_filter" else -cosines

    def task_sizes(self) -> Roles[int]:
        """Images of each task."""
        return self.task_data.map(lambda _, data: len(data.labels))

    def notes(self) -> list[str]:
        """A sentence on each held-out target or test of which the pool has pictures, however their files differ."""
        if self.pairs.digests is None:
            return ["The pool is not kept decoded, so its pictures were not looked for in the tests; mgd census does."]
        found = []
        for role, name, data in self.task_data:
            own = np.array([bytes.fromhex(one) for one in data.identities], "S16")
            shared = np.flatnonzero(np.isin(own, self.pairs.digests))
            if role != "target" and len(shared):
                uid = self.uids[np.flatnonzero(self.pairs.digests == own[shared[0]])[0]].ljust(16, b"\0").hex()
                found.append(
                    f"{len(shared):,} of the {len(own):,} samples of '{name}' are in the pool too, for instance "
                    f"{data.places[shared[0]]}, which is uid {uid}"
                )
        return found

    @cached_property
    def _tokens(self) -> torch.Tensor:
        """Of all captions (n, context length)."""
        return self.vocabulary.tokens(self.pairs.texts)

    def _training_batches(self, counts: Counts, seed: int, round: int) -> Loader:
        """The batches of a training: from everywhere in the pool, or window by window."""
        order = data_order(self, counts, seed, round)
        if self.pairs.streamed is None or not isinstance(order, WindowedOrder):
            return self._loader(lambda t: order[t])
        held = HeldShards(
            self.pairs.streamed, pool_shards(self.pool.samples_path), counts > 0, WINDOWS_HELD * order.largest
        )

        def ids_of(t: int) -> Ids:
            held.expect(order.following(t).tolist())
            return order[t]

        return self._loader(ids_of, held)

    def _loader(self, ids_of: Callable[[int], Ids], images: Callable[[Ids], Images] | None = None) -> Loader:
        """Batches whose numbers stand for pool positions; ``images``: where pixels come from, if not from the pairs."""
        runtime, pixels = self.catalog.runtime, images or self.pairs.images
        return Loader(lambda t: self._read(ids_of(t), pixels), runtime.readers, runtime.batch_cache, self.to_device)

    def _read(self, ids: Ids, images: Callable[[Ids], Images]) -> Batch:
        pixels = torch.from_numpy(images(ids))
        return Batch((pixels, self._tokens[ids]), torch.from_numpy(ids), torch.ones(len(ids)))


def clip_of(learner: Learner) -> ClipObjective:
    """The CLIP of a learner, without what is around it."""
    objective = learner.objective.objective if isinstance(learner.objective, Autocast) else learner.objective
    assert isinstance(objective, ClipObjective)
    return objective


def open_pairs(run: Run, pool: PoolRecord) -> PairWorkbench:
    """The workbench of a run on pairs."""
    catalog = run.catalog
    assert isinstance(catalog, Catalog)
    config = load_model_config(Path(catalog.model.config))
    size, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    pairs = load_pairs(pool, size, catalog.runtime.decoded_disk)
    data = load_targets(catalog.targets, size, reader_of(pool.directory))
    # Not of the tests: the model would depend on them, and another test would be another run.
    texts = [*pairs.texts, *data.target.texts, *data.heldout.texts]
    used = catalog.model.vocabulary == "used"
    vocabulary = used_vocabulary(texts, length) if used else full_vocabulary(length)
    return PairWorkbench(run, catalog, pool, pairs.uids, pairs, data, vocabulary, config)
