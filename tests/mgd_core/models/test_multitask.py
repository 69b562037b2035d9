"""Many tasks as one target: losses, the gradient through the whole run, each task's share, dependent targets."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mgd_core.engine.replay import replay
from mgd_core.models.multitask import independent
from mgd_core.models.zeroshot import Temperature, best_scale
from mgd_core.plans.plan import binomial
from testing import problems
from testing.many_tasks import DIGITS, OWNERS, TRUTH, UNITS, WEIGHTS, many, naive_phi, with_target
from testing.oracles import NaiveRun, Problem, central_difference, relative_error
from testing.samples import small

STEPS = 6


@pytest.fixture(scope="module")
def problem() -> Problem:
    return small(problems.clip, steps=STEPS)


@pytest.mark.parametrize("temperature", ["best", "model", 0.05])
def test_losses_and_gradient_agree_with_plain_loops(problem: Problem, temperature: Temperature) -> None:
    tasks, theta = many(problem, temperature), problem.initial.theta
    phi, gradient = tasks.target(theta)
    naive = with_target(problem, naive_phi(problem, tasks)).phi_and_gradient(theta)
    assert phi.item() == pytest.approx(naive[0].item(), rel=1e-13)
    assert relative_error(gradient, naive[1]) < 1e-12
    score = tasks.score(theta)
    assert score.loss == pytest.approx(phi.item(), rel=1e-13)
    total = sum(WEIGHTS[name] / UNITS[name] * one.loss for name, one in score.tasks.items())
    assert score.loss == pytest.approx(total, rel=1e-13)
    values = {name: one.value for name, one in score.tasks.items()}
    assert score.accuracy == pytest.approx(sum(WEIGHTS[k] * v for k, v in values.items()) / sum(WEIGHTS.values()))


def test_the_metagradient_of_many_tasks_is_that_of_naive_autograd(problem: Problem) -> None:
    tasks = many(problem)
    naive = NaiveRun(with_target(problem, naive_phi(problem, tasks)), 2)
    plan = binomial(2, STEPS, 2)
    found = replay(problem.learner, problem.initial, tasks.target, plan, problem.pool_size)
    oracle = naive.gradient()
    assert found.phi.item() == pytest.approx(oracle.phi, rel=1e-12)
    assert relative_error(found.example, oracle.example) < 1e-12
    along = torch.linspace(-1, 1, problem.pool_size, dtype=torch.float64)
    difference = central_difference(naive.phi, naive.no_change(), along, 1e-3)
    assert difference == pytest.approx((found.example @ along).item(), rel=1e-6)


def test_the_shares_of_tasks_and_groups_add_up_in_one_sweep(problem: Problem) -> None:
    tasks, plan = many(problem), binomial(2, STEPS, 2)
    groups = [("digits",), ("captions", "classes"), ("labels",)]
    each = replay(
        problem.learner, problem.initial, lambda theta: tasks.targets(theta, groups), plan, problem.pool_size, [2]
    )
    whole = replay(problem.learner, problem.initial, tasks.target, plan, problem.pool_size, [2])
    assert each.example.shape == (3, problem.pool_size)
    assert relative_error(each.example.sum(0), whole.example) < 1e-10
    assert relative_error(each.probes[0].gamma.sum(0), whole.probes[0].gamma) < 1e-10
    alone = NaiveRun(with_target(problem, naive_phi(problem, tasks, "labels")), 2).gradient()
    assert relative_error(each.example[2], alone.example) < 1e-12


def test_dependent_targets_are_swept_once() -> None:
    rows = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixed = torch.stack([rows[0], rows[1], 2 * rows[0] - 3 * rows[1], torch.zeros(40), rows[2], rows[1]])
    chosen, coefficients = independent(mixed)
    assert len(chosen) == 3
    torch.testing.assert_close(coefficients @ mixed[chosen], mixed, rtol=1e-12, atol=1e-12)
    everyone, unit = independent(rows.float())
    assert everyone == [0, 1, 2] and (unit == torch.eye(3)).all()
    assert independent(torch.zeros(2, 5))[1].shape == (2, 0)


def test_a_class_tasks_best_scale_is_that_of_cross_entropy(problem: Problem) -> None:
    task = many(problem).tasks["digits"]
    cosines = torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert task.best_scale(cosines) == pytest.approx(best_scale(cosines, DIGITS), rel=1e-9)
    assert task.chance == pytest.approx(torch.tensor(3.0).log().item())


def test_measures_are_those_of_an_evaluation(problem: Problem) -> None:
    """Retrieval and labels as `tasks.evaluation.metrics` has them, but for classes that no picture has."""
    from tasks.evaluation.metrics import average_precision, recalled

    tasks = many(problem).tasks
    cosines = torch.rand(6, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    own = OWNERS[None] == torch.arange(6)[:, None]
    ways = [recalled(cosines, own, 1).double().mean(), recalled(cosines.T, own.T, 1).double().mean()]
    assert tasks["captions"].measures(cosines)["mean_recall@1"] == pytest.approx(float(sum(ways) / 2))
    cosines, truth = cosines[:5, :4], TRUTH
    found = tasks["labels"].measures(cosines)["mean_average_precision"]
    assert found == pytest.approx(average_precision(cosines[:, :3], truth[:, :3]))


def test_batches_change_results_by_rounding_only(problem: Problem) -> None:
    tasks, theta = many(problem), problem.initial.theta
    phi, gradient = tasks.target(theta)
    whole = dataclasses.replace(tasks, rows=100).target(theta)
    assert whole[0].item() == pytest.approx(phi.item(), rel=1e-13) and relative_error(gradient, whole[1]) < 1e-12
