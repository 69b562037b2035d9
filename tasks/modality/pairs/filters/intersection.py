"""negCLIPLoss and NormSim at once, as Wang et al. 2024 (arXiv 2405.19547) use them: pairs that are good by both.

They keep a share by negCLIPLoss, and of these a share by NormSim. Here both shares are the same, so that there is an
order: a pair's place is the worse of its two, and the first k are what lies in the same best share of both.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tasks.modality.pairs.filters.negclip import negclip_losses
from tasks.modality.pairs.filters.target_match import norm_sims
from tasks.modality.recipe import PoolRecipe, Scores


def worse_places(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """The worse place of every pair in the two orders, from 0."""
    orders = (np.argsort(scores(recipe, theta), kind="stable") for scores in (negclip_losses, norm_sims))
    return np.maximum(*map(np.argsort, orders)).astype(np.float64)  # of an order, argsort gives the places
