"""One reverse step: several targets at once are as many single ones, and its errors."""

import pytest
import torch
from torch import Tensor

from mgd_core.engine.reverse import NonFiniteError, ReverseStep, check_finite, reverse_step
from mgd_core.training.optimizers import Adam, Sgd, State
from testing import problems
from testing.oracles import Problem, relative_error, with_learner
from testing.samples import ADAM, CLIPPED, SGD, in_float32, small
from tests.mgd_core.autodiff.test_directions import convnext

T = 2


def states(problem: Problem) -> tuple[State, State]:
    """Before and after step ``T``."""
    state, learner = problem.initial, problem.learner
    for t in range(T):
        state, _ = learner.step(state, t)
    return state, learner.step(state, T)[0]


def adjoint(like: State, *queries: int, seed: int = 0) -> State:
    draw = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(*queries, len(x), generator=draw, dtype=torch.float64).to(x) for x in like.tensors]
    return State(tensors[0], tuple(tensors[1:]))


def reverse(problem: Problem, lam: State, from_moments: bool = True) -> ReverseStep:
    before, after = states(problem)
    return reverse_step(problem.learner, before, after, lam, T, problem.learner.batches(T), from_moments)


def tensors(step: ReverseStep) -> list[Tensor]:
    return [*step.adjoint.tensors, step.gamma, step.weights, step.lr]


EVERY = [*((problems.two_towers, o) for o in (ADAM, CLIPPED, SGD)), (problems.classifier, ADAM), (problems.clip, ADAM)]


@pytest.mark.parametrize(("build", "optimizer"), EVERY)
@pytest.mark.parametrize("chunk", [None, 3])
def test_several_targets_are_as_many_single_ones(build, optimizer: Adam | Sgd, chunk: int | None):
    problem = with_learner(small(build, optimizer), chunk=chunk)
    lam = adjoint(problem.initial, 3)
    for from_moments in (True, False):
        together = reverse(problem, lam, from_moments)
        for q in range(3):
            one = State(lam.theta[q], tuple(m[q] for m in lam.moments))
            for several, single in zip(tensors(together), tensors(reverse(problem, one, from_moments)), strict=True):
                assert several[q].shape == single.shape and relative_error(several[q], single) < 1e-12


def test_several_targets_on_a_convnext():
    problem = with_learner(small(convnext, steps=3), chunk=4)
    lam = adjoint(problem.initial, 2)
    one = State(lam.theta[1], tuple(m[1] for m in lam.moments))
    for several, single in zip(tensors(reverse(problem, lam)), tensors(reverse(problem, one)), strict=True):
        assert relative_error(several[1], single) < 1e-11


def test_one_of_one_is_one():
    problem = small(problems.clip)
    lam = adjoint(problem.initial)
    stacked = State(lam.theta[None], tuple(m[None] for m in lam.moments))
    for several, single in zip(tensors(reverse(problem, stacked)), tensors(reverse(problem, lam)), strict=True):
        assert several.shape == (1, *single.shape) and relative_error(several[0], single) < 1e-12


@pytest.mark.parametrize("queries", [(), (3,)])
def test_the_same_bits_when_repeated_in_float32(queries: tuple[int, ...]):
    for build in (problems.classifier, problems.clip):
        problem = in_float32(small(build))
        lam = adjoint(problem.initial, *queries)
        for a, b in zip(tensors(reverse(problem, lam)), tensors(reverse(problem, lam)), strict=True):
            assert a.dtype == torch.float32 and torch.equal(a, b)


def test_a_cotangent_that_is_not_finite_is_named():
    problem = small(problems.two_towers)
    lam = adjoint(problem.initial, 3)
    lam.theta[1, -1] = float("nan")
    name = problem.learner.layout.names[-1]
    with pytest.raises(NonFiniteError, match=rf"gradient became NaN or infinite at step {T}.*'{name}' \(1 of"):
        reverse(problem, lam)


def test_large_but_finite_values_pass():
    layout = small().learner.layout
    check_finite("g", torch.full((2, layout.length), 1e308, dtype=torch.float64), 0, layout.name_at)
    with pytest.raises(NonFiniteError):
        check_finite("g", torch.tensor([float("inf"), float("-inf")]), 0, layout.name_at)
