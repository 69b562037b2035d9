"""Metasmoothness: closed forms of both definitions, invariances, and trainings whose answer to z is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.analysis.smoothness import (
    UndefinedSmoothness,
    along,
    curvature,
    direction,
    movement,
    reweighted,
    score,
)
from mgd_core.engine.replay import replay, train
from mgd_core.plans.plan import keep_all
from mgd_core.training.optimizers import Adam, Sgd
from testing.samples import DEVICE, first_rows_target, small

FLOATS = st.floats(-4, 4, width=32)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_by_hand() -> None:
    """d = (3, 1, 2, 2) of 8; the first goes on, the second turns back, the third too, the fourth set out late."""
    at_z = torch.tensor([0.0, 0.0, 1.0, 5.0])
    at_h = torch.tensor([1.0, -1.0, 4.0, 5.0])
    at_2h = torch.tensor([3.0, 1.0, 3.0, 3.0])
    assert score(at_z, at_h, at_2h) == (3 - 1 - 2 + 0) / 8
    assert movement(at_z, at_2h) == 8
    assert curvature(1.0, 1.5, 4.0, 0.5) == (4 - 3 + 1) / 0.25
    assert along([at_z, at_h, at_2h], [1.0, 1.5, 4.0], 0.5) == (-0.0, 8.0, 8.0)


@given(st.lists(FLOATS, min_size=1, max_size=8), st.floats(0.01, 2))
@settings(max_examples=60, deadline=None)
def test_of_a_linear_map_it_is_exactly_1(z: list[float], h: float) -> None:
    a, b, v = normal(40, len(z), seed=1), normal(40, seed=2), normal(len(z), seed=3)
    thetas = [a @ (torch.tensor(z, dtype=torch.float64) + k * h * v) + b for k in (0, 1, 2)]
    assert score(*thetas) == 1


def test_of_one_that_turns_back_it_is_minus_1() -> None:
    """theta(z) = (-1)^(z / h) + a drift: every parameter sets out one way and goes on the other."""
    at_z = normal(30)
    at_h = at_z + 10 * normal(30, seed=1).sign()
    assert score(at_z, at_h, at_z + 0.1 * normal(30, seed=2)) == -1


@given(st.integers(0, 1000), st.sampled_from([2.0**-12, 0.25, 8.0, 2.0**20]))
@settings(max_examples=60, deadline=None)
def test_scale_shift_and_order_of_the_parameters_do_not_matter(seed: int, factor: float) -> None:
    thetas = normal(3, 50, seed=seed)
    s = score(*thetas)
    assert -1 <= s <= 1
    assert score(*(factor * thetas)) == s
    signs = normal(50, seed=seed + 1).sign()
    assert score(*(thetas * signs)) == s
    assert score(*thetas.flip(1)) == pytest.approx(s, abs=1e-12)
    assert score(*(thetas + 3.0)) == pytest.approx(s, abs=1e-9)
    d, signed = (thetas[2] - thetas[0]).abs().numpy(), np.sign(np.diff(thetas.numpy(), axis=0))
    assert s == pytest.approx(signed[0] @ np.diag(d / d.sum()) @ signed[1], abs=1e-12), "equation 6 as it stands"


def test_of_noise_it_is_near_0() -> None:
    """Of three independent trainings a third of the parameters goes on, those that came farther: they cancel."""
    assert abs(score(*normal(3, 100_000))) < 0.01


@pytest.mark.parametrize("h", [1e-2, 0.1, 1.0])
def test_definition_1_of_a_quadratic_is_its_second_derivative(h: float) -> None:
    def f(z: float) -> float:
        return 3.5 * z * z - 2 * z + 1

    assert curvature(f(0.3), f(0.3 + h), f(0.3 + 2 * h), h) == pytest.approx(7, rel=1e-9)
    assert curvature(-f(0.3), -f(0.3 + h), -f(0.3 + 2 * h), h) == pytest.approx(7, rel=1e-9)


def test_what_cannot_be_judged_is_refused() -> None:
    x = normal(5)
    with pytest.raises(UndefinedSmoothness, match="same bit for bit"):
        score(x, x + 1, x)
    for broken in (float("nan"), float("inf")):
        y = x.clone()
        y[2] = broken
        for thetas in ((y, x, x + 1), (x, y, x + 1), (x, x + 1, y), (y, x, y)):
            with pytest.raises(UndefinedSmoothness, match="NaN or infinite"):
                score(*thetas)
    with pytest.raises(ValueError, match="three trainings"):
        along([x, x], [0.0, 0.0], 0.1)


def test_directions_are_functions_of_seed_and_number_alone() -> None:
    v = direction(4000, 7, 0)
    torch.rand(3)
    assert torch.equal(v, direction(4000, 7, 0)) and v.dtype == torch.float64
    assert abs(v.mean()) < 0.06 and abs(v.std() - 1) < 0.05
    for other in (direction(4000, 7, 1), direction(4000, 8, 0)):
        assert abs(float((v * other).mean())) < 0.06


def test_weights_are_moved_in_the_window_alone_and_by_h() -> None:
    problem = small()
    shift = direction(len(problem.pool[0]), 0, 0).to(DEVICE)
    moved = reweighted(problem.learner, 0.2 * shift, start=5)
    for t in range(problem.learner.steps):
        plain, other = problem.learner.batches(t), moved.batches(t)
        wanted = plain.weights + (0.2 * shift[plain.ids] if t >= 5 else 0)
        assert torch.equal(other.weights, wanted) and torch.equal(other.ids, plain.ids)
    still, _ = train(reweighted(problem.learner, 0 * shift), problem.initial)
    assert torch.equal(still.theta, train(problem.learner, problem.initial)[0].theta)


def test_one_step_of_sgd_is_linear_in_the_weights() -> None:
    problem = small(optimizer=Sgd(momentum=0.9), steps=1)
    v = direction(len(problem.pool[0]), 0, 1).to(DEVICE)
    thetas = [train(reweighted(problem.learner, k * 0.1 * v), problem.initial)[0].theta for k in (0, 1, 2)]
    assert score(*thetas) == 1


def test_rates_as_metaparameters() -> None:
    problem = small()
    shift = 0.3 * direction(problem.learner.steps, 0, 0)
    rates = problem.learner.learning_rates
    learners = [replace(problem.learner, learning_rates=rates * (1 + k * 0.05 * shift)) for k in (0, 1, 2)]
    assert score(*(train(learner, problem.initial)[0].theta for learner in learners)) > 0.9


def test_a_smooth_training_moves_as_its_metagradient_says() -> None:
    """Central differences along v of the same learner that `reweighted` makes."""
    problem = small(optimizer=Adam(eps_root=1e-6))
    n, k, h = len(problem.pool[0]), 4, 1e-3
    target = first_rows_target(problem)
    v = direction(n, 0, 0).to(DEVICE)
    result = replay(problem.learner, problem.initial, target, keep_all(k, problem.learner.steps), n)
    ends = [train(reweighted(problem.learner, s * h * v, k), problem.initial)[0].theta for s in (-1, 0, 1)]
    losses = [float(target(theta)[0]) for theta in ends]
    assert (losses[2] - losses[0]) / (2 * h) == pytest.approx(float(result.example @ v), rel=1e-5)
    assert score(*ends) > 0.99
    assert curvature(*losses, h=h) < 1


def test_eps_root_smooths_adam() -> None:
    """The knob of the paper, on a training made rough by its learning rate."""

    def measured(eps_root: float) -> float:
        problem = small(optimizer=Adam(eps=1e-12, eps_root=eps_root), peak=0.3, steps=24)
        v = direction(len(problem.pool[0]), 0, 0)
        ends = [train(reweighted(problem.learner, k * 0.1 * v), problem.initial)[0].theta for k in (0, 1, 2)]
        return score(*ends)

    assert measured(1e-2) > measured(0.0) + 0.1
