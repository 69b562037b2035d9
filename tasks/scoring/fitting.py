"""Models of g fitted to what is known of a sample: ridge regression, each sample expected by a model of others.

Samples are dealt into FOLDS by a keyed hash of the uid, so any machine deals them alike, whatever stands beside them.
What is expected of a sample is said by the model of the other folds: the noise of its own g has no part in it, so it
can be weighed against that g (`mgd_core.descent.shrinkage`). Folds are not by caption: where captions are names of
classes, that would ask models of classes they have not seen.

Features are those of round 0 and of the pool, not of a later round's model, which has trained on counts that the
sample's own g moved: through its loss there, the noise would come back.

Two passes over the features, O(n f^2) and O(n f); memory for one stretch of them, and (f + 2)^2 numbers a fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mgd_core.descent.ridge import Moments, Ridge, crossed, fitted
from mgd_core.descent.steps import OUTLIER, uniform
from tasks.files.progress import announce
from tasks.modality.base import Seen
from tasks.scoring.features import Layout, Vector, layout_of, stretches
from tasks.tables.uids import Bytes16

FOLDS = 5


class Known(NamedTuple):
    """What is known of a pool's n samples: what models see, and the pool's own numbers, mapped."""

    seen: Seen
    own: Mapping[str, Vector]


class Fitted(NamedTuple):
    """``expected`` (n,), in the unit of y, by models of the other folds; the ``model`` of all, and its ``layout``."""

    expected: Vector
    model: Ridge
    layout: Layout


def fit(known: Known, uids: Bytes16, y: Vector, weight: Vector) -> Fitted:
    """Models of y (n,) of uids (n,), in whose fit a sample has ``weight`` (n,), 0 where y is not known.

    A y beyond OUTLIER median distances from the median counts as one there.
    """
    layout, fold, near = layout_of(*known), folds(uids), _without_outliers(y, weight > 0)
    parts = [Moments.none(len(layout)) for _ in range(FOLDS)]
    places = stretches(len(uids))
    for done, at in enumerate(places, start=1):
        rows = torch.from_numpy(layout.rows(known.seen, known.own, at))
        for k in range(FOLDS):
            own = torch.from_numpy(np.flatnonzero((fold[at] == k) & (weight[at] > 0)))
            if len(own):
                told = (torch.from_numpy(np.ascontiguousarray(x[at]))[own] for x in (near, weight))
                parts[k] = parts[k].with_samples(rows[own], *told)
        announce("learn what is expected of g", done, len(places))
    models, expected = crossed(parts), np.empty(len(uids))
    for at in places:
        rows = torch.from_numpy(layout.rows(known.seen, known.own, at))
        by_fold = torch.stack([model(rows) for model in models])
        expected[at] = by_fold.gather(0, torch.from_numpy(fold[at])[None])[0].numpy()
    return Fitted(expected, fitted(sum(parts[1:], parts[0])), layout)


def folds(uids: Bytes16) -> npt.NDArray[np.int64]:
    """The fold of each uid (n,), 0 to FOLDS - 1."""
    return (uniform(uids, "mgd fold") * FOLDS).astype(np.int64)


def _without_outliers(y: Vector, known: Sequence[bool] | npt.NDArray[np.bool_]) -> Vector:
    """y (n,), cut off; what is not known as it is."""
    if not np.any(known):
        return y
    middle = float(np.median(y[known]))
    size = float(np.median(np.abs(y[known] - middle)))
    return np.clip(y, middle - OUTLIER * size, middle + OUTLIER * size) if size else y
