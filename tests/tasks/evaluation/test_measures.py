"""Figures that carry their uncertainty: standard errors, means over tests, and a target that is over-fitted."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.evaluation.measures import diverged, metric, share_error
from tasks.files.plurals import counted
from tasks.modality.classification.modality import SCORES
from tasks.report.mean_of_tests import means_over_tests
from tasks.report.overfitting import parting


def test_the_standard_error_of_a_share() -> None:
    assert share_error(0.5, 100) == pytest.approx(0.05) and share_error(1.0, 7) == 0
    assert metric("acc1").standard_error(0.1, 900) == pytest.approx(0.01)
    assert metric("loss").standard_error(0.1, 900) is None
    assert metric("mean_per_class_recall").standard_error(0.1, 900) is None


def test_which_way_is_better_is_the_metrics_own() -> None:
    assert metric("loss").better(1.0, 2.0) and metric("acc1").better(0.2, 0.1)
    assert metric("some metric of DataComp's").better(0.2, 0.1)
    assert sorted([0.1, 0.3], key=metric("acc1").ascending) == [0.3, 0.1]
    assert metric("acc1").words == "accuracy"


def test_numbers_have_their_nouns() -> None:
    assert [counted(n, "round") for n in (0, 1, 2, 1000)] == ["0 rounds", "1 round", "2 rounds", "1,000 rounds"]
    assert counted(2, "class", "classes") == "2 classes"


def row(number: int, target: float, heldout: float, n: int | None = 100, losses: tuple[float, float] = (2, 2)) -> Any:
    return {
        "round": number,
        "target_accuracy": target,
        "heldout_accuracy": heldout,
        "target_loss": losses[0],
        "heldout_loss": losses[1],
        "target_n": n,
        "heldout_n": n,
    }


def test_target_and_held_out_that_part_ways_are_told() -> None:
    rounds = [row(0, 0.31, 0.31), row(1, 0.41, 0.40), row(2, 0.50, 0.31)]
    told = parting(rounds, 1)
    assert "part ways after round 1" in told and "from 41.0 % to 50.0 %" in told and "from 40.0 % to 31.0 %" in told
    assert parting(rounds, 2) == "" == parting(rounds, None) == parting([], None)


def test_chance_is_no_parting() -> None:
    """The standard error of 0.40 over 100 samples is 0.049."""
    assert parting([row(0, 0.41, 0.40), row(1, 0.50, 0.36)], 0) == ""
    assert parting([row(0, 0.41, 0.40), row(1, 0.50, 0.36, None)], 0) == ""
    assert parting([row(0, 0.41, 0.40, None), row(1, 0.50, 0.36, None)], 0) != ""
    assert parting([row(0, 0.41, 0.40), row(1, 0.40, 0.20)], 0) == "", "both got worse: nothing is over-fitted"


def test_losses_part_ways_too() -> None:
    fell = [row(0, 0.4, 0.4, losses=(2.0, 2.0)), row(1, 0.4, 0.4, losses=(1.5, 2.2))]
    assert "loss (100 samples) goes on from 2.000 nats to 1.500 nats" in parting(fell, 0)
    assert parting([fell[0], row(1, 0.4, 0.4, losses=(1.5, 2.01))], 0) == ""
    assert parting([fell[0], row(1, 0.4, 0.4, losses=(1.9999, 2.0002))], 0) == "", "next to nothing"


def test_a_mean_over_tests_of_other_pictures_has_the_smaller_error() -> None:
    shared = {"subset": "mgd", "seed": 1, "metric": "acc1", "samples_seen": 9}
    rows = [
        {**shared, "task": "a", "value": 0.2, "n": 100, "standard_error": 0.03},
        {**shared, "task": "b", "value": 0.4, "n": 50, "standard_error": 0.04},
    ]
    (mean,) = means_over_tests(rows, {"a": {"source": "x"}, "b": {"source": "y"}})
    assert (mean["task"], mean["n"]) == ("mean of 2 tests", 150)
    assert mean["value"] == pytest.approx(0.3) and mean["standard_error"] == pytest.approx(0.025)
    (together,) = means_over_tests(rows, {"a": {"source": "x"}, "b": {"source": "x"}})
    assert together["standard_error"] == pytest.approx(0.035)
    assert means_over_tests(rows[:1], {}) == []
    assert means_over_tests([{**one, "metric": "loss"} for one in rows], {}) == []
    unknown = [{key: value for key, value in one.items() if key not in ("n", "standard_error")} for one in rows]
    assert means_over_tests(unknown, {})[0]["standard_error"] is None


def test_a_tests_own_name_is_not_taken() -> None:
    rows = [{"subset": "mgd", "seed": 1, "metric": "acc1", "value": 0.5, "task": t} for t in ("mean of 2 tests", "b")]
    assert means_over_tests(rows, {})[0]["task"] == "the mean of 2 tests"


def test_a_training_that_diverged_scores_the_worst_of_each_metric() -> None:
    assert diverged(SCORES) == {"target_loss": 1e9, "target_accuracy": 0.0, "test_loss": 1e9, "test_accuracy": 0.0}
    for name, worst in diverged(SCORES).items():
        assert metric(name.rpartition("_")[2]).better(0.5, worst)
