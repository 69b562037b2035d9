"""Shrinkage against the closed form: with its variances given, the prediction is that of the mixed-model equations."""

from __future__ import annotations

import numpy as np
import pytest

from mgd_core.descent.shrinkage import denoised

N = 400


def drawn(seed: int, between: tuple[float, ...], own: float, noise: float, n: int = N) -> tuple:
    """y, what it is without noise, its noise, and groupings of 8, 20, ... groups, from standard deviations."""
    draw = np.random.default_rng(seed)
    groupings = [draw.integers(0, size, n) for size in (8, 20, 50)[: len(between)]]
    true = 0.7 + own * draw.normal(size=n)
    for spread, codes in zip(between, groupings, strict=True):
        true = true + spread * draw.normal(size=50)[codes]
    errors = noise * draw.uniform(0.5, 1.5, n)
    return true + errors * draw.normal(size=n), true, errors**2, groupings


@pytest.mark.parametrize("between", [(1.0,), (1.0, 0.5), (0.3, 0.0, 0.6)])
def test_the_prediction_is_the_best_linear_unbiased_one(between: tuple[float, ...]) -> None:
    y, _, noise, groupings = drawn(0, between, 0.4, 1.0)
    noise[:30] = np.inf
    found = denoised(y, noise, groupings)
    total, known = y[30:].var(), np.isfinite(noise)
    signal = found.own * total * np.eye(N)
    for share, codes in zip(found.of_groups, groupings, strict=True):
        signal += share * total * (codes[:, None] == codes)
    inverse = np.linalg.inv(signal[np.ix_(known, known)] + np.diag(noise[known]))
    mean = inverse.sum(0) @ y[known] / inverse.sum()
    expected = mean + signal[:, known] @ inverse @ (y[known] - mean)
    np.testing.assert_allclose(found.values, expected, atol=2e-3 * np.sqrt(total))


@pytest.mark.parametrize("between", [(1.0,), (0.5, 0.8), (0.0,)])
@pytest.mark.parametrize("own", [0.0, 0.5])
def test_variances_are_found_and_noise_taken_off(between: tuple[float, ...], own: float) -> None:
    y, true, noise, groupings = drawn(1, between, own, 1.5, 50_000)
    found = denoised(y, noise, groupings)
    assert found.own * y.var() == pytest.approx(own**2, abs=0.05)
    assert found.noise * y.var() == pytest.approx(noise.mean())
    error, before = np.mean((found.values - true) ** 2), np.mean((y - true) ** 2)
    assert error < 0.15 * before


def test_what_cannot_be_told() -> None:
    nothing = np.zeros(4, np.int64)
    same = denoised(np.full(4, 2.0), np.ones(4), [nothing])
    assert same.values.tolist() == [2.0] * 4 and same.own == 0
    unmeasured = denoised(np.array([5.0, 1.0, 3.0, 9.0]), np.full(4, np.inf), [nothing])
    assert unmeasured.values.tolist() == [0.0] * 4
    without_groups = denoised(np.array([0.0, 2.0, 4.0]), np.zeros(3), [])
    np.testing.assert_allclose(without_groups.values, [0.0, 2.0, 4.0])


@pytest.mark.parametrize("between", [(), (1.0,), (0.6, 0.5)])
@pytest.mark.parametrize("said", [0.0, 0.8])
def test_with_an_expectation_it_is_generalised_least_squares(between: tuple[float, ...], said: float) -> None:
    y, _, noise, groupings = drawn(2, between, 0.4, 1.0)
    draw = np.random.default_rng(5)
    expected = draw.normal(size=N) + sum((0.3 * codes for codes in groupings), 0.0)  # goes with the groups
    y = y + said * expected
    noise[:30] = np.inf
    found = denoised(y, noise, groupings, expected)
    known, total = np.isfinite(noise), y[30:].var()
    signal = found.own * total * np.eye(N)
    for share, codes in zip(found.of_groups, groupings, strict=True):
        signal += share * total * (codes[:, None] == codes)
    inverse = np.linalg.inv(signal[np.ix_(known, known)] + np.diag(noise[known]))
    fixed = np.stack([np.ones(N), expected], 1)
    line = np.linalg.solve(fixed[known].T @ inverse @ fixed[known], fixed[known].T @ inverse @ y[known])
    of = signal[:, known] @ inverse
    assert found.slope == pytest.approx(line[1], abs=5e-3)
    np.testing.assert_allclose(found.values, fixed @ line + of @ (y - fixed @ line)[known], atol=6e-3 * np.sqrt(total))
    left = np.sqrt(np.diag(signal - of @ signal[known]))
    # Of several groupings each is given the others, whose doubts go together.
    np.testing.assert_allclose(found.errors, left, rtol=1e-6 if len(between) < 2 else 0.05)


@pytest.mark.parametrize("own", [0.2, 0.6])
def test_an_expectation_lowers_the_error_and_the_errors_are_as_told(own: float) -> None:
    n, draw = 40_000, np.random.default_rng(6)
    y, true, noise, groupings = drawn(3, (0.5,), own, 1.5, n)
    signal = 0.8 * draw.normal(size=n)
    y, true, expected = y + signal, true + signal, 3.0 + 2 * signal + draw.normal(size=n)
    noise[: n // 4] = np.inf  # never measured
    found, alone = denoised(y, noise, groupings, expected), denoised(y, noise, groupings)
    error, without = ((one.values - true) ** 2 for one in (found, alone))
    assert error.mean() < 0.75 * without.mean() < 0.75 * np.mean((y - true) ** 2)
    for some in (slice(0, n // 4), slice(n // 4, None)):
        assert np.sqrt(error[some].mean()) == pytest.approx(np.sqrt(np.mean(found.errors[some] ** 2)), rel=0.03)
    inside = np.abs(found.values - true) < found.errors
    assert inside.mean() == pytest.approx(0.683, abs=0.01), "as many within one standard deviation as there should be"


def test_an_expectation_that_says_nothing_changes_nothing() -> None:
    y, _, noise, groupings = drawn(4, (0.7,), 0.5, 1.0, 20_000)
    idle = np.random.default_rng(7).normal(size=20_000)
    found, alone = denoised(y, noise, groupings, idle), denoised(y, noise, groupings)
    assert abs(found.slope) < 0.03
    np.testing.assert_allclose(found.values, alone.values, atol=0.05)
    constant = denoised(y, noise, groupings, np.full(20_000, 4.0))
    np.testing.assert_allclose(constant.values, alone.values, atol=1e-9)


def test_the_chance_to_help_is_that_of_the_normal_distribution() -> None:
    found = denoised(np.array([1.0, -1.0]), np.ones(2), [])._replace(
        values=np.array([-1.0, 1.959964, 0.0, -3.0, 3.0, 0.0]), errors=np.array([1.0, 1.0, 2.0, 0.0, 0.0, 0.0])
    )
    np.testing.assert_allclose(found.helps, [0.841345, 0.025, 0.5, 1.0, 0.0, 0.5], atol=1e-6)
