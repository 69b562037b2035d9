"""Metrics against plain loops over samples, written down from their definitions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from tasks.evaluation import metrics
from tasks.evaluation.task_groups import by_group, group_errors

SEEDS = range(12)


def draw(seed: int, n: int = 40, classes: int = 7) -> tuple[torch.Tensor, np.ndarray]:
    """Scores with ties (n, classes), and labels that leave class 3 out."""
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(0, 6, (n, classes)) / 4)
    labels = rng.choice([c for c in range(classes) if c != 3], n)
    return scores, labels


def ranking(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


@pytest.mark.parametrize("seed", SEEDS)
def test_top_k(seed: int) -> None:
    scores, labels = draw(seed)
    ranked = metrics.best(scores, 5).numpy()
    for k in (1, 5):
        naive = [labels[i] in ranking(row)[:k] for i, row in enumerate(scores.tolist())]
        assert metrics.hits(ranked, labels, k).tolist() == naive


@pytest.mark.parametrize("seed", SEEDS)
def test_means_over_classes(seed: int) -> None:
    scores, labels = draw(seed)
    predicted = metrics.best(scores, 1)[:, 0].numpy()
    recalls, f1 = [], []
    for c in sorted(set(labels.tolist())):
        tp = sum(1 for p, y in zip(predicted, labels, strict=True) if p == y == c)
        named, own = sum(p == c for p in predicted), sum(y == c for y in labels)
        recalls.append(Fraction(tp, int(own)))
        precision, recall = (tp / named if named else 0.0), tp / own
        f1.append(2 * precision * recall / (precision + recall) if tp else 0.0)
    assert metrics.mean_per_class_recall(predicted, labels) == pytest.approx(float(sum(recalls) / len(recalls)))
    assert metrics.macro_f1(predicted, labels) == pytest.approx(sum(f1) / len(f1))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_worst_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    right, groups = rng.random(30) < 0.6, rng.choice([0, 2, 5], 30)
    accuracy, counts = metrics.group_accuracy(right, groups)
    naive = {g: [bool(r) for r, own in zip(right, groups, strict=True) if own == g] for g in (0, 2, 5)}
    assert counts.tolist() == [len(naive.get(g, [])) for g in range(6)]
    assert accuracy[[0, 2, 5]] == pytest.approx([sum(v) / len(v) for v in naive.values()])
    assert metrics.worst_group(accuracy, counts) == pytest.approx(min(sum(v) / len(v) for v in naive.values()))


@pytest.mark.parametrize("seed", SEEDS)
def test_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, scores = rng.random(9) < 0.4, torch.from_numpy(rng.integers(0, 4, 9) / 3)
    n = int(truth.sum())
    predicted = set(ranking(scores.tolist())[:n])
    assert set(np.flatnonzero(metrics.chosen(scores, n)).tolist()) == predicted
    own = set(np.flatnonzero(truth).tolist())
    expected = len(predicted & own) / len(predicted | own) if predicted | own else 0.0
    assert metrics.jaccard(metrics.chosen(scores, n), truth) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_recall_of_retrieval(seed: int) -> None:
    """Five texts of three pictures, ties included: a row counts when one of its own is among the k first."""
    rng = np.random.default_rng(seed)
    scores, owner = torch.from_numpy(rng.integers(0, 5, (5, 3)) / 4), [0, 0, 1, 2, 2]
    positive = torch.zeros(5, 3, dtype=torch.bool)
    positive[range(5), owner] = True
    for k in (1, 2):
        of_texts = [owner[t] in ranking(scores[t].tolist())[:k] for t in range(5)]
        of_images = [any(owner[t] == i for t in ranking(scores[:, i].tolist())[:k]) for i in range(3)]
        assert metrics.recalled(scores, positive, k).double().mean() == pytest.approx(sum(of_texts) / 5)
        assert metrics.recalled(scores.T, positive.T, k).double().mean() == pytest.approx(sum(of_images) / 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = torch.from_numpy(rng.random((11, 4))), torch.from_numpy(rng.random((11, 4)) < 0.3)
    naive = []
    for c in range(4):
        order = ranking(scores[:, c].tolist())
        at = [place for place, i in enumerate(order, 1) if truth[i, c]]
        naive.append(sum((number / place) for number, place in enumerate(at, 1)) / max(len(at), 1))
    assert metrics.average_precision(scores, truth) == pytest.approx(sum(naive) / 4)


def test_standard_errors_are_those_of_drawing_the_samples_again() -> None:
    """Against the spread of the metric over many draws of the same samples, with replacement within each class."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 4], [40, 10, 90])
    predicted = np.where(rng.random(140) < 0.6, labels, 1)
    right = predicted == labels
    share = right.mean()
    assert metrics.standard_error(right) == pytest.approx((share * (1 - share) / 140) ** 0.5)
    drawn = []
    for _ in range(4000):
        again = np.concatenate([rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in (0, 1, 4)])
        drawn.append(metrics.mean_per_class_recall(predicted[again], labels[again]))
    assert metrics.mean_per_class_error(predicted, labels) == pytest.approx(np.std(drawn), rel=0.06)


def test_a_group_has_the_error_of_its_own_samples() -> None:
    right = np.array([1, 1, 0, 0, 1, 0, 1, 1], bool)
    found = by_group("acc", right, {"region": np.array([0, 0, 0, 0, 3, 3, 3, 3])}, "acc_worst_region")
    errors = group_errors(found, 8)
    assert errors["acc_avg"] == (8, pytest.approx((5 / 8 * 3 / 8 / 8) ** 0.5))
    assert errors["acc_region:0"] == errors["acc_worst_region"] == (4, 0.25)
    assert errors["acc_region:3"] == (4, pytest.approx((3 / 16 / 4) ** 0.5))
    assert set(errors) == {"acc_avg", "acc_region:0", "acc_region:3", "acc_worst_region"}
