"""What a count update acts on, in numpy: what the query of tasks.curation.count_updates is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mgd_core.descent.steps import OUTLIER, SCALE_FLOOR, TINY, Counts, Gradients, Mask, mean_in_blocks


def summed(gradients: Sequence[Gradients], weights: Sequence[float], per_sample: bool) -> Gradients:
    """What the update acts on (n,): the weighted sum of several rounds' g (each (n,), 0 where it is not known).

    ``per_sample`` divides it by the root of the sum of squares of the same terms, AdaGrad's scale (Duchi et al. 2011)
    for each sample: a few samples have g of any sign and great size, and would otherwise be moved before those whose g
    is small and steady. For a single round it leaves the order as it is.
    """
    weighted = np.stack([w * g for w, g in zip(weights, gradients, strict=True)])
    total, squares = np.asarray(weighted.sum(0)), np.asarray(np.square(weighted).sum(0))
    if not per_sample:
        return total
    return np.asarray(total / (np.sqrt(squares) + SCALE_FLOOR * np.sqrt(mean_in_blocks(squares)) + TINY))


def scaled_by_count(g: Gradients, counts: Counts, known: Mask) -> Gradients:
    """g (n,) in median sizes of the samples with the same count, cut off at +-``OUTLIER``; 0 where not ``known``.

    A sample that the model never saw has g ten times as large as one it saw twice, most of them positive: anything new
    disturbs a fitted model. Without this scale the sum over rounds is made of what was left out, and keeps it out.
    """
    scaled = np.zeros_like(g)
    for count in np.unique(counts[known]):
        alike = known & (counts == count)
        scaled[alike] = g[alike] / (np.median(np.abs(g[alike])) + TINY)
    return np.clip(scaled, -OUTLIER, OUTLIER)
