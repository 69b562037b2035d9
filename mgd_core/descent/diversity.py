"""Sets instead of samples: the tenth near-copy in a group is worth less than the first.

What sample i is worth alone is b_i = -g_i, nats of target loss for a copy. Of a set S, group by group, what helps is
worth

    sum over groups, sum over r = 1, 2, ...  of  b_(r) r^-strength,    b_(1) >= b_(2) >= ... > 0 of S in the group,

concave in how many a group has (strength 0: plain sums; 1: the logarithm). Within a group worth falls with rank, so the
best set of any size is made of those of the greatest b_i rank_i^-strength: no search is needed. What harms keeps its g.
"""

from __future__ import annotations

import numpy as np

from mgd_core.descent.shrinkage import Codes, Vector


def diminishing(g: Vector, groups: Codes, strength: float) -> Vector:
    """``g`` (n,) with helpful (negative) values divided by their rank in the group to the power of ``strength``;
    ``groups`` (n,): numbers from 0. Equal values are ranked by position."""
    helpful = np.flatnonzero(g < 0)
    ordered = helpful[np.lexsort((g[helpful], groups[helpful]))]
    starts = np.flatnonzero(np.diff(groups[ordered], prepend=-1))
    sizes = np.diff(np.append(starts, len(ordered)))
    rank = np.arange(len(ordered)) - np.repeat(starts, sizes) + 1
    result = g.copy()
    result[ordered] /= rank.astype(np.float64) ** strength
    return result
