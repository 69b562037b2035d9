"""The bootstrap of paired differences: drawn again picture by picture, in closed form, and as it is published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mgd_core.training.order import generator
from mgd_core.training.streams import BOOTSTRAP
from tasks.evaluation import paired_bootstrap
from tasks.evaluation.paired_bootstrap import interval, resampled
from tasks.evaluation.paired_differences import by_task, publish_answers, spelt
from tasks.tables.published import read


def drawn(seeds: int, n: int) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(seeds * n)
    return {name: draws.random((seeds, n)) < share for name, share in (("mgd", 0.7), ("random", 0.5), ("oracle", 0.9))}


def test_every_resample_is_seeds_and_samples_drawn_again_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_bootstrap, "AT_ONCE", 100)  # two resamples at a time
    right = drawn(3, 40)
    found = resampled(right, 25)
    draw = generator(0, BOOTSTRAP)
    seeds = [draw.integers(3, size=3) for _ in range(25)]
    for b in range(25):
        samples = draw.integers(40, size=40)
        for subset, one in right.items():
            plain = sum(bool(one[s, i]) for s in seeds[b] for i in samples) / 120
            assert found[subset][b + 1] == pytest.approx(plain, abs=1e-12)
    assert all(found[subset][0] == pytest.approx(one.mean()) for subset, one in right.items())


def test_of_two_pictures_and_one_seed_it_is_known() -> None:
    """A difference of 1 on one picture and 0 on the other: 0, 1/2 and 1 with chances of 1/4, 1/2 and 1/4."""
    means = resampled({"a": np.array([[True, True]]), "b": np.array([[False, True]])}, 4000)
    difference = means["a"] - means["b"]
    values, times = np.unique(difference[1:], return_counts=True)
    assert values.tolist() == [0, 0.5, 1] and np.abs(times / 4000 - [0.25, 0.5, 0.25]).max() < 0.03
    assert interval(difference) == (0.5, 0.0, 1.0)


def test_the_spread_is_that_of_the_pairs_not_of_the_accuracies() -> None:
    """Standard error of a mean difference over n pictures: the deviation of the differences over the root of n."""
    draws = np.random.default_rng(0)
    easy = draws.random((1, 1000)) < 0.5
    better = easy | (draws.random((1, 1000)) < 0.1)  # right wherever the other is
    means = resampled({"a": better, "b": easy})
    wanted = (better & ~easy).std() / np.sqrt(1000)
    assert (means["a"] - means["b"])[1:].std() == pytest.approx(wanted, rel=0.1)
    _, low, high = interval(means["a"] - means["b"])
    assert high - low == pytest.approx(2 * 1.96 * wanted, rel=0.1) and low > 0
    assert means["a"][1:].std() > 1.5 * wanted


def test_a_ratio_leaves_out_where_it_has_no_value() -> None:
    assert interval(np.array([0.5, np.nan, 1.0, 1.0])) == (0.5, 1.0, 1.0)


def answers(subset: str, seed: int, right: np.ndarray, task: str = "clothes") -> dict[str, object]:
    said = {"subset": subset, "seed": seed, "task": task, "metric": "acc1"}
    return {**said, "n": len(right), "correct": spelt(right)}


def test_differences_are_published_beside_mgd_by_the_seeds_that_all_have(tmp_path: Path) -> None:
    right = drawn(2, 30)
    rows = [answers(subset, seed, one[seed]) for subset, own in right.items() for seed, one in enumerate([own] * 2)]
    rows += [answers("mgd", 7, right["mgd"][0]), answers("random", 0, right["random"][0], "shoes")]
    publish_answers(tmp_path, "small-1", 3, rows)
    assert read(tmp_path, "small-1", "answers", 3).num_rows == 8
    found = read(tmp_path, "small-1", "paired_differences", 3).to_pylist()
    assert [(row["subset"], row["task"], row["seeds"], row["n"]) for row in found] == [
        ("oracle", "clothes", 2, 30),
        ("random", "clothes", 2, 30),
    ]
    means = resampled(right)
    for row in found:
        assert (row["difference"], row["low"], row["high"]) == interval(means["mgd"] - means[row["subset"]])
        assert row["low"] <= row["difference"] <= row["high"]
    stacked = by_task(rows)["clothes", "acc1"]
    assert all((stacked[subset] == right[subset]).all() for subset in right)
    assert by_task([answers("mgd", 1, right["mgd"][0]), answers("random", 2, right["random"][0])]) == {}


def test_nothing_is_published_of_trainings_without_answers(tmp_path: Path) -> None:
    publish_answers(tmp_path, "small-1", 0, [])
    assert read(tmp_path, "small-1", "paired_differences", 0).num_rows == 0
