"""How near a pair is to the target, by round 0's embeddings: NormSim and domain match.

NormSim (Wang et al. 2024, arXiv 2405.19547, section 3.2): the p-norm of a picture's cosines with all pictures of the
target; for p = inf, the cosine with the nearest of them. Domain match: the cosine of picture and caption, as one
vector, with the mean of the target's pictures and their class texts (as `embedding_filter` of texts).
"""

from __future__ import annotations

from math import inf

import numpy as np
import torch
from torch import Tensor

from mgd_core.autodiff.objective import unit_rows
from mgd_core.models.multitask import MultiTask
from mgd_core.models.zeroshot import ZeroShotTask
from tasks.modality.pairs.observed import Vectors, observed
from tasks.modality.recipe import PROBE_BATCH, PoolRecipe, Scores

AT_ONCE = 1 << 25
"""Cosines that are held at once, 4 bytes each."""


def norm_sims(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """NormSim_inf of every picture to the target's, its sign turned; 2 m n d operations for m target pictures."""
    assert theta is not None
    wanted, _ = target_features(recipe, theta)
    return -norm_sim(observed(recipe, theta).images, wanted)


def domain_matches(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Cosine of every pair with the target's mean, its sign turned."""
    assert theta is not None
    seen, wanted = observed(recipe, theta), target_features(recipe, theta)
    # Of two unit vectors as one, the length is the root of 2, whatever they are.
    mean = unit_rows(torch.cat(wanted, 1).double().mean(0)[None])[0].cpu().numpy() / np.sqrt(2)
    of_image, of_text = np.split(mean, 2)
    return -(_dots(seen.images, of_image) + _dots(seen.texts, of_text))


def norm_sim(images: Vectors, wanted: Tensor, p: float = inf) -> Scores:
    """NormSim_p (n,) of unit rows (n, d) to the target's (m, d).

    With p = inf the largest cosine, not the largest size: a picture opposite to one of the target's is not like it.
    """
    found, step = np.empty(len(images)), max(1, AT_ONCE // len(wanted))
    for at in range(0, len(images), step):
        cosines = torch.from_numpy(np.array(images[at : at + step])).to(wanted) @ wanted.T
        norms = cosines.amax(1) if p == inf else torch.linalg.vector_norm(cosines, p, dim=1)
        found[at : at + step] = norms.double().cpu().numpy()
    return found


def target_features(recipe: PoolRecipe, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features of the target's pictures, and of the class of each, both (m, d)."""
    learner, _ = recipe.learner(seed=0)
    task = recipe.targets(learner).target
    params = learner.layout.unflatten(theta)
    if isinstance(task, MultiTask):
        with torch.no_grad():
            features, texts = task.described(theta)
            return features.float(), texts.float()
    assert isinstance(task, ZeroShotTask)
    with torch.no_grad():
        images = [task.objective.encode_images(params, some) for some in task.images.split(PROBE_BATCH)]
        return torch.cat(images).float(), task.class_features(params).float()[task.labels]


def _dots(vectors: Vectors, one: Scores) -> Scores:
    """Products (n,) of rows (n, d) with a vector (d,), in float64, some rows at a time."""
    step = max(1, AT_ONCE // len(one))
    parts = [vectors[at : at + step].astype(np.float64) @ one for at in range(0, len(vectors), step)]
    return np.concatenate(parts)
