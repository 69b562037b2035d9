"""What a trained model sees of a pool of pairs: embeddings, loss and cosine of each; computed once, then mapped.

Everything that scores pairs without metagradients starts from these. 8 d bytes a pair lie in the run's directory for
embeddings of d numbers, 16 more for losses and cosines; no more than a batch of them is held.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgd_core.engine.fingerprints import tensor_digest
from mgd_core.models.clip import ClipObjective
from mgd_core.training.order import generator
from mgd_core.training.streams import CAPTION_BATCHES
from tasks.files.artefacts import is_done, publish_json, publishing
from tasks.files.progress import announce
from tasks.modality.pairs.decoded import Column
from tasks.modality.recipe import PROBE_BATCH, PoolRecipe, Scores, objective_of
from tasks.pool.columns import mapped

Vectors = npt.NDArray[np.float32]


class Observed(NamedTuple):
    """Of n pairs, in the order of the pool: unit embeddings of pictures and captions (n, d), contrastive losses (n,) in
    nats, cosines (n,); all mapped."""

    images: Vectors
    texts: Vectors
    losses: Scores
    cosines: Scores


def observed(recipe: PoolRecipe, theta: Tensor) -> Observed:
    """The whole pool as the model with parameters ``theta`` (P,) sees it, kept in the run under their digest.

    Losses are taken in batches of a fixed permutation of the pool, as each pair needs negatives.
    """
    place, n = _place(recipe, theta), len(recipe)
    record, key = place / "record.json", recipe.run.key("observed", place.name)
    learner, _ = recipe.learner(seed=0)
    objective, params = (
        objective_of(learner, ClipObjective),
        learner.layout.unflatten(theta.to(recipe.catalog.runtime.device)),
    )
    if not is_done(record, key):
        order = generator(0, CAPTION_BATCHES).permutation(n)
        parts = np.array_split(order, max(1, n // PROBE_BATCH))
        with ExitStack() as stack, torch.no_grad():
            arrays: dict[str, npt.NDArray[np.generic]] = {}
            for done, (ids, batch) in enumerate(zip(parts, recipe.batches(parts), strict=True), start=1):
                image, text = features = objective.encode(params, batch.rows)
                found = {"images": image.float(), "texts": text.float()}
                found["losses"] = learner.objective.losses(params, features).double()
                found["cosines"] = (image * text).sum(1).double()
                if not arrays:
                    arrays = {of: _laid_out(stack, place, of, one, n) for of, one in found.items()}
                for of, one in found.items():
                    arrays[of][ids] = one.cpu().numpy()
                announce("embed the pool", done, len(parts))
            for array in arrays.values():
                array.flush()  # type: ignore[attr-defined]
        publish_json(record, {"key": key})
    return Observed(*(mapped(place / f"{of}.npy") for of in Observed._fields))


def forget(recipe: PoolRecipe, theta: Tensor) -> None:
    """Remove what is kept of the pool as this model sees it."""
    shutil.rmtree(_place(recipe, theta), ignore_errors=True)


def _place(recipe: PoolRecipe, theta: Tensor) -> Path:
    path: Path = recipe.run.work("observed", tensor_digest(theta).hex()[:16])
    return path


def _laid_out(stack: ExitStack, place: Path, of: str, one: Tensor, n: int) -> npt.NDArray[np.generic]:
    """A file of its final size, written through a map from wherever; it appears when the stack ends well."""
    column = Column(place / f"{of}.npy", "<f4" if one.dtype == torch.float32 else "<f8", (n, *one.shape[1:]))
    file = stack.enter_context(publishing(column.path))
    file.write(column.header)
    file.truncate(column.place(n))
    file.flush()
    return np.memmap(file.name, column.kind, "r+", len(column.header), column.shape)
