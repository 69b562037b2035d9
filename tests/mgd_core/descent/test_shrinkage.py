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
