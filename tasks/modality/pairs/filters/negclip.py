"""negCLIPLoss (Wang et al. 2024, arXiv 2405.19547, equation 1): a pair's CLIP loss among many random others.

A cosine is high for captions and pictures that go with everything; what a pair has beyond that is its cosine over the
temperature, less the mean of the two log-sum-exps of its picture with all captions and its caption with all pictures of
a batch, averaged over random batches. `loss_filter` is the same in one batch of a few hundred.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mgd_core.models.clip import ClipObjective
from mgd_core.training.order import generator
from mgd_core.training.streams import NEGATIVES
from tasks.files.progress import announce
from tasks.modality.pairs.observed import Vectors, observed
from tasks.modality.recipe import Ids, PoolRecipe, Scores, objective_of

BATCH, BATCHES = 32_768, 10  # Wang et al. 2024, section 5
AT_ONCE = 1 << 25
"""Similarities that are held at once, 4 bytes each."""


def negclip_losses(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """negCLIPLoss of every pair by round 0's model, its sign turned, over the temperature: nats.

    2 n d operations for each of 327,680 others in a large pool; one of less than two batches is one batch, taken once.
    """
    assert theta is not None
    seen, n = observed(recipe, theta), len(recipe)
    learner, _ = recipe.learner(seed=0)
    scale = float(objective_of(learner, ClipObjective).scale(learner.layout.unflatten(theta)))
    many = max(1, n // BATCH)
    turns, total = BATCHES if many > 1 else 1, np.zeros(n)
    for done, ids in enumerate(random_batches(n, many, turns), start=1):
        images, texts = (_rows(x, ids, theta) for x in (seen.images, seen.texts))
        total[ids] += batch_losses(images, texts, scale).double().cpu().numpy()
        announce("negCLIPLoss", done, many * turns)
    return total / turns


def random_batches(n: int, many: int, turns: int) -> Iterator[Ids]:
    """Positions of a batch, ascending: in each turn ``many`` of equal size hold every one of ``n`` pairs once."""
    for turn in range(turns):
        order = generator(0, NEGATIVES, turn).permutation(n)
        yield from (np.sort(part) for part in np.array_split(order, many))


def batch_losses(images: Tensor, texts: Tensor, scale: float) -> Tensor:
    """Symmetric InfoNCE (b,) of each pair of a batch of unit rows (b, d), nats; some rows of similarities at a time."""
    of_images, of_texts = [], images.new_full((len(texts),), float("-inf"))
    for some in images.split(max(1, AT_ONCE // len(texts))):
        logits = scale * (some @ texts.T)
        of_images.append(torch.logsumexp(logits, 1))
        of_texts = torch.logaddexp(of_texts, torch.logsumexp(logits, 0))
    return 0.5 * (torch.cat(of_images) + of_texts) - scale * (images * texts).sum(1)


def _rows(vectors: Vectors, ids: Ids, like: Tensor) -> Tensor:
    return torch.from_numpy(vectors[ids]).to(like.device)
