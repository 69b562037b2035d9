"""Attribution: what the outputs of a trained model owe to each training example, and how well that predicts.

With z the weight of every example (1: the training as it is), phi(z) ~ phi(1) + <d phi / dz, z - 1>: the change of an
output when examples are dropped is predicted as minus the sum of their metagradients. This is the influence function of
the training itself, data order and optimizer included, exact to first order (Ilyas & Engstrom 2025, arXiv 2504.16430).
The check is the linear datamodelling score (Park et al. 2023, arXiv 2303.14186, section 2): train again without random
subsets, and take Spearman's rank correlation of predicted and true outputs over the subsets, for each output by itself.

A dropped example keeps its place in the data order with weight 0, so that all trainings take the same steps. Cost: one
reverse sweep for any number of outputs; a training for each subset of the check.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgd_core.engine.metaparameters import ExampleWeights
from mgd_core.engine.training import train
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import State
from mgd_core.training.order import generator
from mgd_core.training.streams import DROPS

Floats = npt.NDArray[np.float64]
Drops = npt.NDArray[np.bool_]


class Interval(NamedTuple):
    """A score and its interval by the bootstrap over subsets."""

    score: float
    low: float
    high: float


def drop_sets(examples: int, share: float, count: int, seed: int) -> Drops:
    """``count`` random subsets to drop, each of the ``share`` of the examples: (count, examples), true where dropped.

    Raises:
        ValueError: the share drops nothing or everything.
    """
    size = round(share * examples)
    if not 0 < size < examples:
        raise ValueError(f"a share of {share:g} drops {size} of {examples} examples: a subset has 1 to {examples - 1}")
    drops = np.zeros((count, examples), np.bool_)
    for number in range(count):
        draw = generator(seed, DROPS + size, number)
        drops[number, draw.permutation(examples)[:size]] = True
    return drops


def predicted_changes(example: Tensor, drops: Drops) -> Floats:
    """Change of each output (subsets, Q) when subsets (subsets, n) are dropped; ``example``: d phi / dz (Q, n)."""
    return np.asarray(-drops.astype(np.float64) @ example.double().cpu().numpy().T)


def trained_without(learner: Learner, initial: State, dropped: npt.NDArray[np.bool_]) -> State:
    """The model trained with the examples of ``dropped`` (n,) at weight 0."""
    weights = torch.from_numpy(1.0 - dropped).to(initial.theta)
    return train(ExampleWeights(len(dropped)).placed(learner, weights), initial)[0]


def scores(predicted: Floats, true: Floats) -> Floats:
    """Linear datamodelling score of each output (Q,), -1 to 1; both (subsets, Q).

    Raises:
        ValueError: fewer than three subsets, or an output that the subsets do not move.
    """
    if predicted.shape != true.shape or len(true) < 3:
        raise ValueError(
            f"predicted {predicted.shape} and true {true.shape} changes: both (3 subsets or more, outputs)"
        )
    flat = [q for q in range(true.shape[1]) if np.ptp(true[:, q]) == 0 or np.ptp(predicted[:, q]) == 0]
    if flat:
        raise ValueError(f"outputs {flat} are the same for every subset, so that nothing can be ranked")
    return _correlations(_ranks(predicted), _ranks(true))


def intervals(predicted: Floats, true: Floats, seed: int, draws: int = 1000, level: float = 0.95) -> list[Interval]:
    """Each output's score and its percentile interval over resampled subsets; the last is of the mean over outputs."""
    found, n = scores(predicted, true), len(true)
    draw = generator(seed, DROPS, draws)
    samples = np.empty((draws, len(found)))
    for number in range(draws):
        chosen = draw.integers(n, size=n)
        samples[number] = _correlations(_ranks(predicted[chosen]), _ranks(true[chosen]))
    columns = [*samples.T, np.nanmean(samples, axis=1)]
    ends = [np.nanquantile(column, [(1 - level) / 2, (1 + level) / 2]) for column in columns]
    return [Interval(float(s), float(a), float(b)) for s, (a, b) in zip([*found, found.mean()], ends, strict=True)]


def _ranks(x: Floats) -> Floats:
    """Ranks within each column, ties sharing their mean."""
    ranks = np.empty_like(x)
    for q, column in enumerate(x.T):
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks[:, q] = (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]
    return ranks


def _correlations(a: Floats, b: Floats) -> Floats:
    a, b = a - a.mean(0), b - b.mean(0)
    with np.errstate(invalid="ignore"):  # a resample of one subset alone has no correlation
        return np.asarray((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0)))
