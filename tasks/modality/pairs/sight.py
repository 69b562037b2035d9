"""What trained CLIPs see of single pairs, of the run's pool or of any other: embeddings, loss and cosine.

A contrastive loss needs negatives. Here they are the same REFERENCE pairs for every pair, drawn once from the run's
pool, so what is seen of a pair is a function of that pair and the models, whatever is seen beside it: a scorer can be
taken to another pool, and shard it as it likes. A pair that is one of them is no negative of its own.

Of the run's own pool embeddings are those of `observed`; what is kept besides is 16 bytes a pair and model. Other
models than the first are asked for loss and cosine only, at a forward pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Rows
from mgd_core.models.clip import ClipObjective
from mgd_core.training.order import generator
from mgd_core.training.streams import CAPTION_BATCHES
from tasks.files.artefacts import is_done, publish_json
from tasks.files.progress import announce
from tasks.modality.base import Seen, States, Vectors
from tasks.modality.pairs.model_configs import Config, built_clip
from tasks.modality.pairs.observed import observed
from tasks.modality.pairs.pairs import Streamed, load_tokens
from tasks.modality.pairs.pairs import prepared as prepared_pool
from tasks.modality.pairs.vocabulary import Vocabulary
from tasks.modality.prepared import Prepared
from tasks.modality.recipe import PROBE_BATCH, Ids, PoolRecipe, Scores, objective_of
from tasks.pool.columns import columns_of, mapped, publish_array
from tasks.pool.record import PoolRecord

REFERENCE = 512
"""Pairs that are every pair's negatives."""
SAME = 1e-5
"""How far the cosines of two pictures, and of their captions, may be from 1 for the two pairs to be one."""
FORMAT = 1  # changes with what the numbers of a pair are
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Model:
    """One CLIP: its parameters, and unit embeddings of the reference pairs (r, d), (r, d)."""

    objective: ClipObjective
    params: Params
    reference: Pair

    def numbers(self, image: Tensor, text: Tensor) -> Tensor:
        """Loss in nats and cosine (m, 2) of pairs by their unit embeddings (m, d), float64."""
        apart = ((image @ self.reference[0].T) < 1 - SAME) | ((text @ self.reference[1].T) < 1 - SAME)
        losses = self.objective.candidate_losses(self.params, (image, text), self.reference, apart)
        return torch.stack([losses.double(), (image * text).sum(1).double()], dim=1)


@dataclass(frozen=True)
class PairSight:
    """Models by what they are called, of one config and vocabulary."""

    config: Config
    vocabulary: Vocabulary
    models: Mapping[str, Model]

    def prepared(self, pool: PoolRecord) -> list[Prepared]:
        """Tokens of the captions; pictures are decoded as they are looked at."""
        return prepared_pool(pool, self._side, self.vocabulary.context_length, 0)[:1]

    def of(self, pool: PoolRecord, ids: Ids) -> Seen:
        """Both embeddings by the first model, loss and cosine by each."""
        images, tokens = Streamed(columns_of(pool), self._side), load_tokens(pool, self.vocabulary.context_length)
        vectors, numbers = list[Vectors](), list[Scores]()
        for at in range(0, len(ids), PROBE_BATCH):
            some = ids[at : at + PROBE_BATCH]
            texts = self.vocabulary.known(tokens.rows(some))[0]
            first, told = self._look((torch.from_numpy(images(some)), texts))
            vectors.append(first)
            numbers.append(told)
        if not vectors:
            vectors = [np.zeros((0, 2, int(self.config["embed_dim"])), np.float32)]
            numbers = [np.zeros((0, 2 * len(self.models)))]
        both, columns = np.concatenate(vectors), np.concatenate(numbers).T
        return Seen((both[:, 0], both[:, 1]), dict(zip(names(self.models), columns, strict=True)))

    def packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Parameters and reference embeddings of each model, the vocabulary; the config, and how the models are
        called."""
        tensors = {"vocabulary": torch.from_numpy(self.vocabulary.ids)}
        for name, model in self.models.items():
            for key, tensor in (*model.params.items(), *zip(("images", "texts"), model.reference, strict=True)):
                tensors[f"{name}/{key}"] = tensor.detach().clone()
        told = {"config": self.config, "context_length": self.vocabulary.context_length, "models": list(self.models)}
        return tensors, told

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> PairSight:
        """What was packed; raises KeyError where a part is missing."""
        vocabulary = Vocabulary(tensors["vocabulary"].cpu().numpy(), told["context_length"])
        objective = ClipObjective(built_clip(told["config"], vocabulary.size, 0))
        layout = ParameterLayout.of(objective.model)
        models = {}
        for name in told["models"]:
            params = {key: tensors[f"{name}/{key}"] for key in layout.names}
            models[name] = Model(objective, params, (tensors[f"{name}/images"], tensors[f"{name}/texts"]))
        return cls(told["config"], vocabulary, models)

    def _look(self, rows: Rows) -> tuple[Vectors, Scores]:
        """Embeddings (m, 2, d) by the first model, numbers (m, 2 models)."""
        found, seen = [], []
        with torch.no_grad():
            for model in self.models.values():
                device = model.reference[0].device
                image, text = model.objective.encode(model.params, tuple(x.to(device) for x in rows))
                seen.append(torch.stack([image, text], dim=1).float())
                found.append(model.numbers(image, text))
        return seen[0].cpu().numpy(), torch.cat(found, dim=1).cpu().numpy()

    @property
    def _side(self) -> int:
        return int(self.config["vision_cfg"]["image_size"])


def names(models: Iterable[str]) -> list[str]:
    """What the numbers of each model are called, in their order."""
    return [f"{what} {name}" for name in models for what in ("loss", "cosine")]


def sight_of(recipe: PoolRecipe, config: Config, vocabulary: Vocabulary, states: States) -> PairSight:
    """The models of a run, with the reference pairs of its pool."""
    learner, _ = recipe.learner(seed=0)
    objective, device = objective_of(learner, ClipObjective), recipe.catalog.runtime.device
    ids = np.sort(generator(0, CAPTION_BATCHES).permutation(len(recipe))[:REFERENCE])
    rows = tuple(x.to(device) for x in recipe.rows(ids))
    models = {}
    for name, theta in states.items():
        params = learner.layout.unflatten(theta.to(device))
        with torch.no_grad():
            image, text = objective.encode(params, rows)
        models[name] = Model(objective, params, (image, text))
    return PairSight(config, vocabulary, models)


def seen_of_run(recipe: PoolRecipe, states: States, sight: Callable[[], PairSight]) -> Seen:
    """What the models see of the run's own pool, mapped; computed once, by ``sight``."""
    first, n = next(iter(states)), len(recipe)
    embedded, found, key = observed(recipe, states[first]), dict[str, Scores](), recipe.run.key("seen", FORMAT)
    for name in states:
        record = recipe.run.work("observed", f"{name}-numbers.json")
        if not is_done(record, key):
            model, numbers = sight().models[name], np.empty((2, n))
            pairs = _stretches(embedded.images, embedded.texts) if name == first else _encoded(recipe, model)
            for ids, image, text in pairs:
                with torch.no_grad():
                    numbers[:, ids] = model.numbers(image, text).T.cpu().numpy()
            publish_array(record.with_suffix(".npy"), numbers)
            publish_json(record, {"key": key})
        found |= dict(zip(names([name]), mapped(record.with_suffix(".npy")), strict=True))
    return Seen((embedded.images, embedded.texts), found)


def _stretches(images: Vectors, texts: Vectors) -> Iterator[tuple[Ids, Tensor, Tensor]]:
    for ids in _parts(len(images)):
        yield ids, torch.from_numpy(images[ids]), torch.from_numpy(texts[ids])


def _encoded(recipe: PoolRecipe, model: Model) -> Iterator[tuple[Ids, Tensor, Tensor]]:
    parts = list(_parts(len(recipe)))
    for done, (ids, batch) in enumerate(zip(parts, recipe.batches(parts), strict=True), start=1):
        with torch.no_grad():
            image, text = model.objective.encode(model.params, batch.rows)
        yield ids, image, text
        announce("look at the pool by an earlier state", done, len(parts))


def _parts(n: int) -> Iterator[Ids]:
    return (np.arange(at, min(at + PROBE_BATCH, n)) for at in range(0, n, PROBE_BATCH))
