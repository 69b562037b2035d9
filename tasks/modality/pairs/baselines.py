"""Filters that anyone could have used on pairs, without the truth: lowest loss, highest cosine of picture and caption.

Both are by the model that round 0 trained, on the whole pool unless the catalog has a start. A CLIP score that the pool
brought along, by a better model, is another rival: the catalog names it (`expression_baselines`).
"""

from __future__ import annotations

from torch import Tensor

from tasks.modality.pairs.observed import Observed, observed
from tasks.modality.recipe import PoolRecipe, Scores

ROUND_0 = "round-000"


def losses(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Contrastive loss of every pair, nats."""
    return _of_round_0(recipe, theta).losses


def cosines(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Cosine of every picture and its caption, the sign turned."""
    return -_of_round_0(recipe, theta).cosines


def _of_round_0(recipe: PoolRecipe, theta: Tensor | None) -> Observed:
    assert theta is not None
    return observed(recipe, theta, ROUND_0)
