"""The recipe of image-text pairs: a CLIP, trained on pictures and captions, and its zero-shot tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.models.clip import MAX_SCALE, ClipObjective
from mgd_core.models.multitask import MultiTask
from mgd_core.models.zeroshot import ZeroShotTask
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Bounds, Optimizer
from mgd_core.training.windows import WindowedOrder
from tasks.catalog.pair_catalog import Catalog
from tasks.catalog.pair_targets import TargetOptions
from tasks.catalog.roles import Roles
from tasks.catalog.smoothness_options import MenuOptions
from tasks.catalog.target_options import ZeroShotSection
from tasks.evaluation.eval_sets import is_eval_set, open_eval_set
from tasks.files.artefacts import read_json
from tasks.files.remote_files import Reader
from tasks.files.sources import reader_of
from tasks.modality.base import Baseline, Grouping, Modality, Seen, States
from tasks.modality.pairs.augmentation import crops_of, probe_draws, training_draws
from tasks.modality.pairs.baselines import BASELINES
from tasks.modality.pairs.caption_tokens import TokenColumns
from tasks.modality.pairs.clusters import image_clusters, text_clusters
from tasks.modality.pairs.decoded import Images, rows_of
from tasks.modality.pairs.encoder import RunEncoder
from tasks.modality.pairs.held_shards import HeldShards
from tasks.modality.pairs.knobs import turned_config
from tasks.modality.pairs.model_configs import Config, built_clip, check_model, load_model_config
from tasks.modality.pairs.multitask.loading import Loaded, load_targets
from tasks.modality.pairs.observed import forget
from tasks.modality.pairs.pairs import Pairs, Streamed, load_pairs, load_tokens, prepared
from tasks.modality.pairs.sight import PairSight, seen_of_run, sight_of
from tasks.modality.pairs.target_check import check_targets
from tasks.modality.pairs.vocabulary import Vocabulary, full_vocabulary, used_vocabulary
from tasks.modality.prepared import Prepared
from tasks.modality.recipe import PROBE_BATCH, Counts, Ids, PoolRecipe, objective_of
from tasks.pool.index_jobs import sheet_fingerprint
from tasks.runs.run import Run

WINDOWS_HELD = 3  # the one that is trained on, the next, and the one before, which other threads may still read


@dataclass(frozen=True)
class PairRecipe(PoolRecipe):
    """An open run on image-text pairs."""

    catalog: Catalog
    task_data: Roles[Loaded]
    pairs: Pairs
    tokens: TokenColumns
    vocabulary: Vocabulary
    model_config: Config

    def model(self, seed: int) -> nn.Module:
        """The CLIP of the config, for the vocabulary."""
        return built_clip(self.model_config, self.vocabulary.size, seed)

    def objective(self, model: nn.Module) -> Objective:
        """CLIP's loss; its scale is capped there, or by the optimizer."""
        return ClipObjective(model, math.inf if self.catalog.model.clamp_logit_scale else MAX_SCALE)

    def optimizer(self, layout: ParameterLayout, theta: Tensor) -> Optimizer:
        """As every recipe's; where the catalog says so, it keeps the scale's logarithm between 0 and ln 100."""
        made = super().optimizer(layout, theta)
        if not self.catalog.model.clamp_logit_scale:
            return made
        places = torch.tensor([layout.place_of("logit_scale")], device=theta.device)
        return replace(made, bounds=Bounds(places, 0.0, math.log(MAX_SCALE)))  # type: ignore[type-var]

    def rows(self, ids: Ids) -> Rows:
        """Pixels and tokens."""
        return self._rows(ids, self.pairs.images(ids))

    def training_batches(self, counts: Counts, seed: int, round: int) -> Callable[[int], Batch]:
        """As every recipe's, cropped where the catalog says so; window by window, shards are read whole where the pool
        is not kept decoded."""
        order, options = self.order(counts, seed, round), self.catalog.augmentation
        ids_of: Callable[[int], Ids] = order.__getitem__
        images, files = self.pairs.images, self._files
        if isinstance(order, WindowedOrder) and (options or self.pairs.streamed):
            held = HeldShards(self.stored, counts > 0, WINDOWS_HELD * order.largest)
            ids_of, images, files = partial(_announced, order, held), held, held.files

        def read(t: int) -> Batch:
            whole = ids_of(t)
            ids = self.own(whole)
            if options is None:
                return self.batch(ids, self._rows(ids, images(ids)))
            draws = self.own(training_draws(len(whole), seed, round, t))
            return self.batch(ids, self._rows(ids, crops_of(files(ids), draws, self.side, options)))

        return self.loader(read)

    @property
    def views(self) -> int:
        """One a crop, if there are any."""
        return max(1, self.catalog.augmentation.probe_crops) if self.catalog.augmentation else 1

    def candidates(self, ids: Ids, round: int, step: int) -> Iterator[Batch]:
        """Whole, as every recipe's, or the crops that belong to each."""
        options, seed = self.catalog.augmentation, self.catalog.descent.seed
        if options is None or not options.probe_crops:
            return super().candidates(ids, round, step)
        many = max(1, PROBE_BATCH // self.views)
        parts = [ids[at : at + many] for at in range(0, len(ids), many)]

        def read(i: int) -> Batch:
            draws = probe_draws(self.uids[parts[i]], self.views, seed, round, step)
            repeated = np.repeat(parts[i], self.views)
            images = crops_of(self._files(parts[i]), draws, self.side, options)
            return self.batch(repeated, self._rows(repeated, images))

        return self.in_order(len(parts), read)

    def bind(self, data: Loaded, learner: Learner) -> ZeroShotTask | MultiTask:
        """A zero-shot task, or many tasks."""
        temperature = self.catalog.targets.temperature
        return data.bind(objective_of(learner, ClipObjective), learner.layout, self.vocabulary, temperature)

    def encoder(self, theta: torch.Tensor, identity: str) -> RunEncoder:
        """The CLIP with the run's vocabulary and preprocessing."""
        learner, _ = self.learner()
        params = learner.layout.unflatten(theta)
        return RunEncoder(objective_of(learner, ClipObjective), params, self.vocabulary, self.side, identity)

    @property
    def said(self) -> object:
        """Catalog and model config, which has knobs of its own."""
        return self.catalog, self.model_config

    def turned(self, knob: str, value: Any) -> Self:
        """The recipe with a knob of the learner or the model at another value; raises CatalogError."""
        if knob in MenuOptions.model_fields and knob not in ("logit_scale", "width"):
            return super().turned(knob, value)
        return replace(self, model_config=turned_config(self.model_config, knob, value, self.catalog.model.config))

    def notes(self) -> list[str]:
        """A sentence on each held-out target or test of which the pool has pictures, however their files differ."""
        if self.pairs.digests is None:
            return ["The pool is not kept decoded, so its pictures were not looked for in the tests; mgd census does."]
        found = []
        for role, name, data in self.task_data:
            own = np.array([bytes.fromhex(one) for one in data.identities], "S16")
            there = rows_of(own, self.pairs.digests) if role != "target" else np.full(len(own), -1)
            if len(shared := np.flatnonzero(there >= 0)):
                uid = bytes(self.uids[self.pairs.columns.members[there[shared[0]]]]).ljust(16, b"\0").hex()
                found.append(
                    f"{len(shared):,} of the {len(own):,} samples of '{name}' are in the pool too, for instance "
                    f"{data.places[shared[0]]}, which is uid {uid}"
                )
        return found

    @property
    def side(self) -> int:
        """Of the pictures that the model sees, pixels."""
        return int(self.model_config["vision_cfg"]["image_size"])

    @property
    def stored(self) -> Streamed:
        """Where the pictures lie as they came, whether they are kept decoded or not."""
        return Streamed(self.pairs.columns, self.side)

    def _files(self, ids: Ids) -> list[bytes]:
        """Encoded pictures of positions."""
        return self.pairs.columns.encoded(ids)

    def _rows(self, ids: Ids, images: Images) -> Rows:
        return torch.from_numpy(images), self.vocabulary.compact(self.tokens.rows(ids))


def _announced(order: WindowedOrder, held: HeldShards, t: int) -> Ids:
    """Positions of a step's batch; the shards of the window after it are read from now on."""
    held.expect(order.following(t).tolist())
    return order[t]


class PairModality(Modality):
    """Pictures and captions, for a CLIP."""

    kinds = ("clip",)
    catalog = Catalog
    baselines: ClassVar[Mapping[str, Baseline]] = BASELINES
    groupings: ClassVar[Mapping[str, Grouping]] = {"image_cluster": image_clusters, "text_cluster": text_clusters}

    def open(self, run: Run) -> PairRecipe:
        """With the pool at the model's size, kept decoded or not, and the tokens in use."""
        catalog, pool = run.catalog, run.pool
        assert isinstance(catalog, Catalog)
        config, size, length = _config(catalog)
        pairs, tokens = load_pairs(pool, size, catalog.runtime.decoded_disk), load_tokens(pool, length)
        data = load_targets(catalog.targets, size, reader_of(pool.directory))
        # Not of the tests: the model would depend on them, and another test would be another run.
        texts = [*data.target.texts, *data.heldout.texts]
        used = catalog.model.vocabulary == "used"
        vocabulary = used_vocabulary(texts, length, tokens.used) if used else full_vocabulary(length)
        return PairRecipe(run, catalog, pool, pairs.columns.uids, data, pairs, tokens, vocabulary, config)

    def prepared(self, run: Run) -> list[Prepared]:
        """Tokens, and pictures where they are kept decoded."""
        catalog = run.catalog
        assert isinstance(catalog, Catalog)
        _, size, length = _config(catalog)
        return prepared(run.pool, size, length, catalog.runtime.decoded_disk)

    def check(self, catalog: Catalog, home: Path) -> list[str]:
        """See that the model can be built and the targets read; returns what is read of them, and what is left."""
        check_model(Path(catalog.model.config))
        return check_targets(catalog, home)

    def seen(self, recipe: PairRecipe, states: States) -> Seen:
        """Embeddings by the first state, loss and cosine by each."""
        return seen_of_run(recipe, states, lambda: self.sight(recipe, states))

    def sight(self, recipe: PairRecipe, states: States) -> PairSight:
        """The models, with the run's config and vocabulary."""
        return sight_of(recipe, recipe.model_config, recipe.vocabulary, states)

    def forget(self, recipe: PairRecipe, theta: Tensor) -> None:
        """Embeddings, losses and cosines by one model."""
        forget(recipe, theta)

    def unpacked(self, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> PairSight:
        """CLIPs from a file."""
        return PairSight.unpacked(tensors, described)

    def model_identity(self, catalog: Catalog) -> dict[str, Any]:
        """Of the config what it says, however it is written; without the kind, which came later."""
        return {**catalog.model.model_dump(exclude={"kind"}), "config": read_json(Path(catalog.model.config))}

    def task_identity(self, catalog: Catalog, task: ZeroShotSection) -> str:
        """Digest of the bytes of a task's sheet or evaluation set, wherever they lie."""
        if is_eval_set(task.source):
            reader = Reader(catalog.pool.remote)
            return open_eval_set(task.source, task.folder, reader, task.templates is not None).content(reader)
        return sheet_fingerprint(Path(task.source))

    def measured_by(self, targets: TargetOptions) -> dict[str, Any]:
        """The temperature, and how sets are parted."""
        return {"temperature": targets.temperature, "parts": targets.parts.model_dump(mode="json")}


def _config(catalog: Catalog) -> tuple[Config, int, int]:
    """The model's config, the side of its pictures and the tokens of its texts."""
    config = load_model_config(Path(catalog.model.config))
    return config, config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
