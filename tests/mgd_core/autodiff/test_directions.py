"""Many directions at once: each as plain autograd has it, at any chunk and however many go together."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mgd_core.autodiff import directions
from mgd_core.autodiff.derivatives import CurvatureProduct, curvature_product
from mgd_core.autodiff.directions import OneByOneError, curvature, curvature_products
from mgd_core.autodiff.objective import Features, Rows
from mgd_core.training.optimizers import Optimizer
from testing import problems
from testing.oracles import Problem, relative_error
from testing.samples import ADAM, DEVICE, small
from tests.mgd_core.autodiff.test_derivatives import plain


def convnext(optimizer: Optimizer, steps: int) -> Problem:
    """The demo's image tower: convolutions with and without groups, layer norm over channels."""
    return problems.clip(optimizer, steps, peak=1e-3, vision=problems.CONVNEXT)


PROBLEMS = [problems.classifier, problems.two_towers, problems.clip]


def call(problem: Problem, v: Tensor, *options, how=curvature_products) -> CurvatureProduct:
    learner, batch = problem.learner, problem.learner.batches(0)
    arguments = (learner.objective, learner.layout, problem.initial.theta, v, batch.rows, batch.weights)
    return how(*arguments, *options)


def check(problem: Problem, v: Tensor, found: CurvatureProduct) -> None:
    for q, direction in enumerate(v):
        _, gradient, theta_part, weights = plain(problem, direction)
        assert relative_error(found.theta[q], theta_part) < 1e-12
        assert relative_error(found.weights[q], weights) < 1e-12
        assert found.value[q].item() == pytest.approx((gradient @ direction).item(), rel=1e-10)


def directions_of(problem: Problem, count: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, problem.learner.layout.length, generator=draw, dtype=torch.float64).to(DEVICE)


@pytest.mark.parametrize("build", PROBLEMS)
@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("together", [1, 2, 3])
def test_agrees_with_double_backward(build, chunk: int | None, together: int):
    problem = small(build)
    v = directions_of(problem)
    check(problem, v, call(problem, v, chunk, together))


@pytest.mark.parametrize(("chunk", "together"), [(None, 1), (4, 2)])
def test_agrees_on_convolutions(chunk: int | None, together: int):
    problem = small(convnext, steps=1)
    v = directions_of(problem, 2)
    found = call(problem, v, chunk, together)
    for q in range(2):
        single = call(problem, v[q], how=curvature_product)
        assert relative_error(found.theta[q], single.theta) < 1e-12
        assert relative_error(found.weights[q], single.weights) < 1e-11


@pytest.mark.parametrize("build", PROBLEMS)
def test_the_way_that_is_taken_for_one_direction_does_not_matter(build, monkeypatch):
    problem = small(build)
    v = directions_of(problem, 1)[0]
    double = call(problem, v, how=curvature)
    monkeypatch.setattr(directions, "DOUBLE_BELOW", {})
    forward = call(problem, v, how=curvature)
    for a, b in zip(double[:3], forward[:3], strict=True):
        assert a.shape == b.shape and relative_error(a, b) < 1e-12


def test_the_same_bits_when_repeated():
    problem = small(problems.clip)
    v = directions_of(problem)
    for options in ((None, 3), (3, 3), (3, 1)):
        first, second = call(problem, v, *options), call(problem, v, *options)
        assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_chunks_without_weight_are_left_out():
    """Their losses do not couple here, so they move nothing, and their own derivative is still returned."""
    problem = small(problems.classifier)
    learner, batch, v = problem.learner, problem.learner.batches(0), directions_of(problem)
    weights = batch.weights * batch.weights.new_tensor([1, 1, 1, 0, 0, 0, 1])
    encoded: list[int] = []

    class Counting(problems.Classifier):
        def encode(self, params, rows: Rows) -> Features:
            encoded.append(len(rows[0]))
            return super().encode(params, rows)

    objective = Counting(learner.objective.model)  # type: ignore[attr-defined]
    arguments = (learner.layout, problem.initial.theta)
    whole = curvature_products(learner.objective, *arguments, v, batch.rows, weights)
    for how, along in ((curvature_products, v), (curvature_product, v[0])):
        found = how(objective, *arguments, along, batch.rows, weights, 3)
        assert encoded == [3, 3, 1, 3, 1]
        encoded.clear()
        expected = CurvatureProduct(*(x if found.theta.ndim > 1 else x[0] for x in whole[:3]))
        assert all(relative_error(a, b) < 1e-12 for a, b in zip(found[:3], expected[:3], strict=True))


class Square(torch.autograd.Function):
    """x^2 whose backward would be right once, and is a constant to the second; its forward mode is right."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.x = inputs[0]
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return 2 * ctx.x.detach() * g

    @staticmethod
    def jvp(ctx, t: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * t


class Squared(problems.Classifier):
    def encode(self, params, rows: Rows) -> Features:
        return tuple(Square.apply(x) for x in super().encode(params, rows))


@pytest.mark.parametrize("chunk", [None, 3])
def test_a_custom_function_is_never_differentiated_twice(chunk: int | None):
    problem = small(problems.classifier)
    learner, batch, v = problem.learner, problem.learner.batches(0), directions_of(problem)
    objective = Squared(learner.objective.model)  # type: ignore[attr-defined]
    arguments = (objective, learner.layout, problem.initial.theta, v, batch.rows, batch.weights, chunk)
    with pytest.raises(OneByOneError, match="Square, a custom autograd"):
        curvature_products(*arguments)
    with pytest.warns(UserWarning, match="each direction is a forward-mode pass"):
        found = curvature(*arguments)

    def losses(params, rows: Rows) -> Tensor:
        return problem.losses(params, rows) ** 2

    check(dataclasses.replace(problem, losses=losses), v, found)


class Detached(problems.Classifier):
    """An objective that cuts its own derivative."""

    def encode(self, params, rows: Rows) -> Features:
        return super().encode({name: p.detach() for name, p in params.items()}, rows)


def test_a_loss_without_derivative_is_named():
    problem = small(problems.classifier, ADAM)
    learner, batch = problem.learner, problem.learner.batches(0)
    arguments = (learner.layout, problem.initial.theta, directions_of(problem), batch.rows, batch.weights)
    with pytest.raises(ValueError, match=r"no derivative by the parameters.*detach"):
        curvature(Detached(learner.objective.model), *arguments)  # type: ignore[attr-defined]
