"""Metrics of zero-shot tasks, from scores or predictions; each is a share, 0 to 1.

They are the numbers of DataComp's evaluation code (clip_benchmark, WILDS and scikit-learn underneath), with their
choices: classes that no sample has stay out of means over classes; macro averages run over the classes that samples
have; a group without samples is never the worst. One choice is ours: equal scores rank in the order of their columns,
where torch leaves it open, so a result is a function of the scores. Memory: one batch of scores, or what is passed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Whole = npt.NDArray[np.int64]
Truth = npt.NDArray[np.bool_]


def best(scores: Tensor, k: int) -> Tensor:
    """The columns (n, min(k, columns)) of the highest scores of each row (n, columns), the highest first."""
    return torch.sort(scores, dim=1, descending=True, stable=True)[1][:, :k]


def hits(ranked: Whole, labels: Whole, k: int) -> npt.NDArray[np.bool_]:
    """Whether each label (n,) is among the first ``k`` of its row of ``ranked`` (n, >= k)."""
    return np.asarray((ranked[:, :k] == labels[:, None]).any(1))


def class_recalls(predicted: Whole, labels: Whole) -> npt.NDArray[np.float64]:
    """Share of right answers in each class that occurs in ``labels``, in the order of the classes."""
    _, place = np.unique(labels, return_inverse=True)
    return np.asarray(np.bincount(place, predicted == labels) / np.bincount(place))


def mean_per_class_recall(predicted: Whole, labels: Whole) -> float:
    """Mean over classes of the share of right answers: balanced accuracy."""
    return float(class_recalls(predicted, labels).mean())


def standard_error(values: npt.ArrayLike) -> float:
    """Of the mean of values (n,) by the choice of the n; of a share a: sqrt(a (1 - a) / n)."""
    array = np.asarray(values, np.float64)
    return float(array.std() / np.sqrt(len(array)))


def mean_per_class_error(predicted: Whole, labels: Whole) -> float:
    """Standard error of `mean_per_class_recall` by the choice of the samples of each class."""
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    share = np.bincount(place, predicted == labels) / sizes
    return float(np.sqrt((share * (1 - share) / sizes).sum()) / len(sizes))


def macro_f1(predicted: Whole, labels: Whole) -> float:
    """Mean over the classes that occur in ``labels`` of 2 tp / (samples of the class + answers that name it)."""
    classes = np.unique(labels)
    tp = np.array([np.sum((predicted == c) & (labels == c)) for c in classes])
    size = np.array([np.sum(labels == c) + np.sum(predicted == c) for c in classes])
    return float((2 * tp / size).mean())


def group_accuracy(right: npt.NDArray[np.bool_], groups: Whole) -> tuple[npt.NDArray[np.float64], Whole]:
    """Share of right answers, and samples, of groups 0, 1, ... up to the largest; 0 where a group is empty."""
    counts = np.bincount(groups)
    return np.bincount(groups, right) / np.maximum(counts, 1), counts


def worst_group(accuracy: npt.NDArray[np.float64], counts: Whole) -> float:
    """The lowest accuracy of a group that has samples."""
    return float(accuracy[counts > 0].min())


def jaccard(predicted: Truth, truth: Truth) -> float:
    """Size of the intersection over size of the union of two sets, as masks; 0 where both are empty."""
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 0.0


def chosen(scores: Tensor, n: int) -> Truth:
    """Mask of the ``n`` highest of ``scores`` (columns,)."""
    mask = np.zeros(len(scores), bool)
    mask[best(scores[None], n)[0].numpy()] = True
    return mask


def recalled(scores: Tensor, positive: Tensor, k: int) -> Tensor:
    """Which rows (n,) of ``scores`` (n, columns) have a ``positive`` (same shape, bool) among their k highest."""
    return positive.gather(1, best(scores, k)).any(1)


def average_precision(scores: Tensor, truth: Tensor) -> float:
    """Mean over classes of the average precision of ranking samples by ``scores`` (n, classes); ``truth`` likewise.

    A class that no sample has counts 0, as in clip_benchmark.
    """
    order = torch.sort(scores.T, dim=1, descending=True, stable=True)[1]
    found = truth.T.bool().gather(1, order).double()
    precision = found.cumsum(1) / torch.arange(1, len(scores) + 1)
    return float(((precision * found).sum(1) / found.sum(1).clamp(min=1)).mean())
