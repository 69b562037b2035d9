"""How sure a difference of accuracies is: a bootstrap over the seeds of the trainings and the samples of the test.

Two things are chance in a comparison: which seeds were trained, and which samples the test has. A resample draws both
with replacement, the same for all subsets, so that what two trainings have in common (an easy picture, a lucky seed)
adds nothing to the spread of their difference; its 2.5th and 97.5th percentiles are the interval (Efron & Tibshirani
1993, chapter 13). Of few seeds it tells a little too small a spread: with S of them (S - 1) / S of their variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mgd_core.training.order import generator
from mgd_core.training.streams import BOOTSTRAP

Floats = npt.NDArray[np.float64]
Right = npt.NDArray[np.bool_]
"""Answers (seeds, samples) of one subset's trainings: true where right."""
RESAMPLES = 2000
LEVEL = 0.95
AT_ONCE = 1 << 22
"""Draws of samples that are held at once, 8 bytes each."""


class Interval(NamedTuple):
    """A figure, and the ends of its interval of 95 %."""

    value: float
    low: float
    high: float


def resampled(right: Mapping[str, Right], resamples: int = RESAMPLES) -> dict[str, Floats]:
    """Accuracies (resamples + 1,) of each subset: as measured, then by resample, the same draws for all.

    Every subset has answers by the same seeds to the same samples, in one order. Sums of whole numbers: the same bits
    on any machine.
    """
    seeds, n = next(iter(right.values())).shape
    draw = generator(0, BOOTSTRAP)
    of_seeds = np.stack([np.ones(seeds, np.int64), *(_times(draw, seeds) for _ in range(resamples))])
    answers = {subset: one.astype(np.float64) for subset, one in right.items()}
    found = {subset: np.empty(len(of_seeds)) for subset in right}
    step = max(1, AT_ONCE // n)
    for at in range(0, len(of_seeds), step):
        some = of_seeds[at : at + step]
        of_samples = [np.ones(n, np.int64) if i == 0 else _times(draw, n) for i in range(at, at + len(some))]
        weights = np.stack(of_samples).astype(np.float64)
        for subset, one in answers.items():
            found[subset][at : at + step] = ((weights @ one.T) * some).sum(1) / (seeds * n)
    return found


def interval(figures: Floats) -> Interval:
    """Of a figure (resamples + 1,) that was computed of each resample, the measured one first; resamples where it has
    no value (NaN) are left out."""
    known = figures[1:][~np.isnan(figures[1:])]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(known) else (np.nan, np.nan)
    return Interval(float(figures[0]), float(low), float(high))


def _times(draw: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
    """How often each of n is drawn in n draws."""
    return np.bincount(draw.integers(n, size=n), minlength=n)
