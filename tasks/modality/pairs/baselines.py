"""Filters that anyone could have used on pairs, without the truth: lowest loss, highest cosine of picture and caption,
and those of `filters`.

All but `gradient_filter` are by the model that round 0 trained, on the whole pool unless the catalog has a start. A
CLIP score that the pool brought along, by a better model, is another rival: the catalog names it
(`expression_baselines`).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tasks.modality.base import Baseline
from tasks.modality.pairs.filters.influence import influences
from tasks.modality.pairs.filters.intersection import worse_places
from tasks.modality.pairs.filters.loss_difference import loss_differences
from tasks.modality.pairs.filters.negclip import negclip_losses
from tasks.modality.pairs.filters.one_step import one_step_effects
from tasks.modality.pairs.filters.target_match import domain_matches, norm_sims
from tasks.modality.pairs.observed import observed
from tasks.modality.recipe import PoolRecipe, Scores


def losses(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Contrastive loss of every pair, nats."""
    assert theta is not None
    return observed(recipe, theta).losses


def cosines(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Cosine of every picture and its caption, the sign turned."""
    assert theta is not None
    return -observed(recipe, theta).cosines


BASELINES: Mapping[str, Baseline] = {
    "loss_filter": Baseline(losses, by_model=True),
    "own_clip_filter": Baseline(cosines, by_model=True),
    "negclip_filter": Baseline(negclip_losses, by_model=True),
    "norm_sim_filter": Baseline(norm_sims, by_model=True),
    "negclip_norm_sim_filter": Baseline(worse_places, by_model=True),
    "domain_match_filter": Baseline(domain_matches, by_model=True),
    "color_filter": Baseline(loss_differences, by_model=True),
    "gradient_filter": Baseline(one_step_effects),
    "influence_filter": Baseline(influences, by_model=True),
}
