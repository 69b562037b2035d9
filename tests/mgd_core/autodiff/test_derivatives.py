"""Gradient, candidate tangents and curvature product against plain autograd, at any chunk size."""

import pytest
import torch

from mgd_core.autodiff.derivatives import chunks, curvature_product, encode_dual, value_and_gradient
from mgd_core.autodiff.objective import Objective
from testing import problems
from testing.oracles import Problem, relative_error
from testing.samples import small

PROBLEMS = [problems.classifier, problems.two_towers, problems.clip]


def plain(problem: Problem, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Loss, gradient, H v and d<v, grad L>/dw of the first batch, by double backward."""
    layout, batch = problem.learner.layout, problem.learner.batches(0)
    theta = problem.initial.theta.clone().requires_grad_()
    w = batch.weights.clone().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = (w * problem.losses(layout.unflatten(theta), batch.rows)).sum() / len(w)
        (g,) = torch.autograd.grad(loss, theta, create_graph=True)
        return (loss.detach(), g.detach(), *torch.autograd.grad((g * v).sum(), (theta, w)))


@pytest.mark.parametrize("build", PROBLEMS)
@pytest.mark.parametrize("chunk", [None, 1, 3, 7, 100])
def test_agrees_with_double_backward_at_any_chunk(build, chunk: int | None):
    problem = small(build)
    learner, theta, batch = problem.learner, problem.initial.theta, problem.learner.batches(0)
    v = torch.randn_like(theta)
    loss, gradient, theta_part, weights = plain(problem, v)
    found = value_and_gradient(learner.objective, learner.layout, theta, batch.rows, batch.weights, chunk)
    product = curvature_product(learner.objective, learner.layout, theta, v, batch.rows, batch.weights, chunk)
    assert found[0].item() == pytest.approx(loss.item(), rel=1e-13)
    assert relative_error(found[1], gradient) < 1e-12
    assert relative_error(product.theta, theta_part) < 1e-12
    assert relative_error(product.weights, weights) < 1e-12
    assert product.value.item() == pytest.approx((gradient @ v).item(), rel=1e-10)


def test_inputs_are_left_alone():
    problem = small()
    learner, theta, batch = problem.learner, problem.initial.theta.clone(), problem.learner.batches(0)
    before = [x.clone() for x in (theta, *batch.rows, batch.weights)]
    curvature_product(learner.objective, learner.layout, theta, torch.ones_like(theta), batch.rows, batch.weights, 3)
    after = (theta, *batch.rows, batch.weights)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(x.requires_grad for x in after)


def test_tangents_of_features_do_not_depend_on_the_chunk():
    problem = small(problems.clip)
    learner, theta, rows = problem.learner, problem.initial.theta, problem.pool
    v = torch.randn_like(theta)
    whole, pieces = (encode_dual(learner.objective, learner.layout, theta, v, rows, size) for size in (None, 5))
    for a, b in zip((*whole.primal, *whole.tangent), (*pieces.primal, *pieces.tangent), strict=True):
        assert relative_error(b, a) < 1e-13


@pytest.mark.parametrize("build", PROBLEMS)
def test_chunks_without_weight_change_nothing_else(build):
    """They are left out where losses do not couple, and stay as negatives where they do."""
    problem = small(build)
    learner, theta, batch = problem.learner, problem.initial.theta, problem.learner.batches(0)
    weights = batch.weights * batch.weights.new_tensor([0, 0, 0, 1, 1, 1, 0])
    arguments = (learner.objective, learner.layout, theta, batch.rows, weights)
    _, whole = value_and_gradient(*arguments)
    for chunk in (1, 3):
        assert relative_error(value_and_gradient(*arguments, chunk)[1], whole) < 1e-13
    loss, nothing = value_and_gradient(*arguments[:4], torch.zeros_like(weights), 3)
    assert loss == 0 and (nothing == 0).all()


class Detached(Objective):
    """An objective that cuts its own derivative."""

    def encode(self, params, rows):
        return (rows[0] * next(iter(params.values())).detach().sum(),)

    def losses(self, params, features):
        return features[0].sum(1)

    def candidate_losses(self, params, candidates, reference, others):
        return candidates[0].sum(1)


def test_a_loss_without_derivative_is_named():
    problem = small()
    theta, rows = problem.initial.theta, problem.learner.batches(0).rows
    with pytest.raises(ValueError, match=r"no derivative by the parameters.*detach"):
        curvature_product(Detached(), problem.learner.layout, theta, theta, rows, theta.new_ones(7))


@pytest.mark.parametrize("size", [0, -2])
def test_impossible_chunks_are_refused(size: int):
    with pytest.raises(ValueError, match=f"at least 1, got {size}"):
        list(chunks((torch.zeros(4),), size))
