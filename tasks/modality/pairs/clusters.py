"""Clusters of a pool's embeddings: groups for pools that bring none along.

Spherical k-means (Dhillon and Modha 2001): unit vectors, nearest by cosine, centres renormalised means. Centres are
found on a part of the pool of at most `FOR_A_CENTRE` vectors a centre, drawn from a seed; every pair is then given to
the nearest, stretch by stretch, so memory does not grow with the pool. As many centres as the root of the pool's size.
They are found once a run, for every round and filter that asks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgd_core.autodiff.objective import unit_rows
from mgd_core.training.order import generator
from mgd_core.training.streams import CLUSTERS
from tasks.modality.pairs.observed import Vectors, observed
from tasks.modality.recipe import PoolRecipe
from tasks.pool.columns import mapped, publish_array

FOR_A_CENTRE, SWEEPS, STRETCH = 64, 20, 1 << 14
Codes = npt.NDArray[np.int64]


def image_clusters(recipe: PoolRecipe, theta: Tensor) -> Codes:
    """The cluster (n,) of every picture's embedding by round 0's model."""
    return _kept(recipe, theta, "images")


def text_clusters(recipe: PoolRecipe, theta: Tensor) -> Codes:
    """The cluster (n,) of every caption's embedding by round 0's model."""
    return _kept(recipe, theta, "texts")


def clusters(vectors: Vectors, k: int, seed: int) -> Codes:
    """The nearest of ``k`` centres to each of the unit ``vectors`` (n, d): numbers (n,), 0 to k - 1."""
    drawn = generator(seed, CLUSTERS).permutation(len(vectors))[: FOR_A_CENTRE * k]
    seen = torch.from_numpy(vectors[np.sort(drawn)].astype(np.float32))
    centres = torch.from_numpy(vectors[drawn[:k]].astype(np.float32))
    nearest = torch.full((len(seen),), -1)
    for _ in range(SWEEPS):
        before, nearest = nearest, (seen @ centres.T).argmax(1)
        if torch.equal(before, nearest):
            break
        sums = torch.zeros_like(centres).index_add_(0, nearest, seen)
        kept = sums.square().sum(1, keepdim=True) > 0  # a centre that nothing is near to stays where it is
        centres = torch.where(kept, unit_rows(sums + ~kept), centres)
    found = np.empty(len(vectors), np.int64)
    for at in range(0, len(vectors), STRETCH):
        stretch = torch.from_numpy(vectors[at : at + STRETCH].astype(np.float32))
        found[at : at + STRETCH] = (stretch @ centres.T).argmax(1).numpy()
    return found


def _kept(recipe: PoolRecipe, theta: Tensor, of: str) -> Codes:
    path = recipe.run.work("observed", f"clusters-of-{of}.npy")
    if not path.exists():
        vectors: Vectors = getattr(observed(recipe, theta), of)
        publish_array(path, clusters(vectors, max(1, round(len(vectors) ** 0.5)), recipe.catalog.descent.seed))
    found: Codes = mapped(path)
    return found
