"""Influences predict what drops do to first order, and the scores are what they are said to be."""

import numpy as np
import pytest
import torch

from mgd_core.analysis.attribution import drop_sets, intervals, predicted_changes, scores, trained_without
from mgd_core.engine.replay import replay, train
from mgd_core.models.classification import MEASURES, ClassificationObjective, Outputs, each_class, each_example, margin
from mgd_core.plans.plan import keep_all
from mgd_core.training.learner import check_rowwise
from mgd_core.training.optimizers import Adam
from testing import problems
from testing.samples import small


def outputs_of(problem, groups, measure="loss") -> Outputs:
    objective = ClassificationObjective(problem.learner.objective.model)
    rows = problem.pool[0][:9], problem.pool[1][:9]
    return Outputs(objective, problem.learner.layout, rows, groups.double(), MEASURES[measure])


@pytest.mark.parametrize("measure", ["loss", "margin"])
def test_influences_predict_small_drops(measure: str):
    """To first order: with steps of the weights a thousandth of a drop, to a thousandth of the change."""
    problem = small(problems.classifier, Adam(eps_root=1e-4), steps=10)
    outputs = outputs_of(problem, each_example(9), measure)
    found = replay(problem.learner, problem.initial, outputs, keep_all(0, 10), problem.pool_size)
    assert found.example.shape == (9, problem.pool_size)
    drops = drop_sets(problem.pool_size, 0.2, 3, seed=0)
    predicted = predicted_changes(found.example, drops)
    for row, dropped in zip(predicted, drops, strict=True):
        theta = trained_without(problem.learner, problem.initial, 1e-3 * dropped).theta
        change = (outputs.values(theta).detach() - found.phi).cpu().numpy()
        assert np.linalg.norm(change - 1e-3 * row) < 3e-3 * np.linalg.norm(change)


def test_nothing_dropped_is_the_training_as_it_is():
    problem = small(problems.classifier, steps=4)
    whole, without = train(problem.learner, problem.initial)[0], np.zeros(problem.pool_size, np.bool_)
    assert torch.equal(trained_without(problem.learner, problem.initial, without).theta, whole.theta)


def test_classes_are_means_of_their_examples():
    problem = small(problems.classifier, steps=4)
    labels = problem.pool[1][:9]
    single = outputs_of(problem, each_example(9)).values(problem.initial.theta)
    by_class = outputs_of(problem, each_class(labels, 3)).values(problem.initial.theta)
    expected = torch.stack([single[labels == c].mean() for c in range(3)])
    torch.testing.assert_close(by_class, expected)
    with pytest.raises(ValueError, match=r"classes \[3\] have no test sample among 9"):
        each_class(labels, 4)
    with pytest.raises(ValueError, match="no test sample among 0"):
        each_class(labels[:0], 2)


def test_the_margin_is_the_log_odds():
    logits = torch.randn(6, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    p = logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(margin(logits, labels), (p / (1 - p)).log())


def test_drop_sets_are_of_their_size_and_a_function_of_the_seed():
    drops = drop_sets(200, 0.05, 4, seed=3)
    assert drops.sum(1).tolist() == [10] * 4 and len(np.unique(drops, axis=0)) == 4
    assert np.array_equal(drops[:2], drop_sets(200, 0.05, 2, seed=3)) and (drops != drop_sets(200, 0.05, 4, 4)).any()
    for share in (0.001, 1.0):
        with pytest.raises(ValueError, match="a subset has 1 to 199"):
            drop_sets(200, share, 4, seed=3)


def test_scores_are_spearmans():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(40, 3)), draw.normal(size=(40, 3))
    b[:, 1], b[:, 2] = np.exp(a[:, 1]), -(a[:, 2] ** 3)
    expected = 1 - 6 * ((a[:, 0].argsort().argsort() - b[:, 0].argsort().argsort()) ** 2).sum() / (40 * (40**2 - 1))
    assert scores(a, b) == pytest.approx([expected, 1.0, -1.0])
    found = intervals(a, b, seed=0, draws=200)
    assert len(found) == 4 and found[3].score == pytest.approx(scores(a, b).mean())
    assert found[0].low < found[0].score < found[0].high and found[1] == pytest.approx((1, 1, 1))
    with pytest.raises(ValueError, match=r"outputs \[1\] are the same"):
        scores(a[:, :2], np.stack([b[:, 0], 0 * b[:, 0]], 1))
    with pytest.raises(ValueError, match="3 subsets or more"):
        scores(a[:2], b[:2])


def test_dropout_left_on_is_refused():
    with pytest.raises(ValueError, match=r"drops activations at random \(p=0.1\)"):
        check_rowwise(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1)))
