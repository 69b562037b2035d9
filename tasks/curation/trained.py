"""Models of subsets, trained afresh with the plain recipe: kept where somebody will ask for them again.

A training is a function of (recipe, pool, counts, seed), whatever the subset is called. The chosen subset's final
parameters are kept in `work/trained`, 4 bytes a parameter, so that testing it on more tasks trains nothing; a rival's
are where they are few (KEPT), or where it is asked for by name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from mgd_core.engine.replay import train
from tasks.curation.counts_digest import counts_digest
from tasks.evaluation.encoders import Encoder
from tasks.files.artefacts import digest, is_done, publish_json
from tasks.files.progress import announcing
from tasks.modality.recipe import Counts, PoolRecipe
from tasks.modality.tensor_files import publish_tensors
from tasks.runs.run import Run
from tasks.tables.published import read

KEPT = 64 << 20
"""Bytes of parameters that are kept of every training."""


def trained_parameters(recipe: PoolRecipe, counts: Counts, subset: str, seed: int, keep: bool = True) -> torch.Tensor:
    """Final parameters (P,) of the recipe on ``counts``, named ``subset``; trained unless they are kept from before."""
    record, key = _record(recipe.run, counts, seed)
    if is_done(record, key):
        with safe_open(record.with_suffix(".safetensors"), "pt", device=recipe.catalog.runtime.device) as file:
            return file.get_tensor("theta")
    learner, state = recipe.learner(counts, seed)
    final, _ = train(learner, state, on=announcing(f"compare: {subset}, seed {seed}", learner.steps))
    if keep or final.theta.nbytes <= KEPT:
        publish_tensors(record.with_suffix(".safetensors"), {"theta": final.theta})
        publish_json(record, {"key": key})
    return final.theta


def published_counts(run: Run, round: int) -> Counts:
    """Counts (n,) of a round, in uid order, without a recipe.

    Raises:
        TableError: they are not published.
    """
    counts: Counts = read(run.home, run.id, "counts", round, ["count"])["count"].to_numpy().astype(np.int64)
    return counts


def trained_identity(run: Run, counts: Counts, seed: int) -> str | None:
    """What the model trained on ``counts`` is known by to evaluations; None: it is to be trained yet."""
    record, key = _record(run, counts, seed)
    return _identity(run, key) if is_done(record, key) else None


def _identity(run: Run, key: str) -> str:
    return digest([key, run.record["environment"], run.record["versions"]])


def run_encoder(recipe: PoolRecipe, counts: Counts, subset: str, seed: int) -> Encoder:
    """The model of a subset as evaluation sees it.

    Raises:
        CatalogError: evaluation sets mean nothing to it.
    """
    theta = trained_parameters(recipe, counts, subset, seed)
    _, key = _record(recipe.run, counts, seed)
    return recipe.encoder(theta, _identity(recipe.run, key))


def _record(run: Run, counts: Counts, seed: int) -> tuple[Path, str]:
    """Where a training is kept, and its key."""
    content = counts_digest(counts)
    return run.work("trained", f"{content[:16]}-{seed}.json"), run.key("trained", seed, content)
