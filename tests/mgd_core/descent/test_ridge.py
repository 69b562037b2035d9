"""Ridge regression against the normal equations and brute force: every sample left out, every fold fitted afresh."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgd_core.descent.ridge import PENALTIES, Moments, Ridge, crossed, fitted

N, F = 90, 6


def drawn(noise: float = 1.0, n: int = N) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x with a constant and a repeated column, y, weights."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, F)) * [1, 5, 0.1, 1, 1, 1] + [0, 100, 3, 0, 0, 0]
    x[:, 4], x[:, 5] = 7.0, x[:, 0]
    y = x[:, 0] - 0.2 * x[:, 1] + noise * draw.normal(size=n)
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(draw.uniform(0.5, 2, n))


def plainly(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions of the samples themselves, and the hat matrix, by the definition."""
    share = w / w.sum()
    z = x - share @ x
    size = (share @ z**2).sqrt()
    z = z / torch.where(size > 1e-6, size, 1.0)
    gram = z.T @ (share[:, None] * z) + penalty * torch.eye(F, dtype=torch.float64)
    hat = share[None].expand(len(x), -1) + z @ torch.linalg.solve(gram, z.T * share)
    return hat @ y, hat


def moments(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, stretch: int = N) -> Moments:
    found = Moments.none(F)
    for at in range(0, len(x), stretch):
        found = found.with_samples(x[at : at + stretch].float(), y[at : at + stretch], w[at : at + stretch])
    return found


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_it_is_the_definition_at_the_penalty_of_the_least_generalised_error(noise: float) -> None:
    x, y, w = drawn(noise)
    x = x.float().double()  # as features come
    found = fitted(moments(x, y, w))
    errors = {}
    for penalty in PENALTIES:
        predicted, hat = plainly(x, y, w, penalty)
        errors[penalty] = float((w / w.sum()) @ (y - predicted) ** 2 / (1 - hat.trace() / N) ** 2)
    assert found.penalty == min(errors, key=lambda one: errors[one])
    torch.testing.assert_close(found(x), plainly(x, y, w, found.penalty)[0], atol=1e-8, rtol=0)


def test_stretches_and_folds_add_up() -> None:
    x, y, w = drawn()
    whole, parts = moments(x, y, w), moments(x, y, w, 7)
    torch.testing.assert_close(whole.table, parts.table, rtol=1e-12, atol=0)
    assert whole.samples == parts.samples == N
    fold = torch.arange(N) % 5
    models = crossed([moments(x[fold == k], y[fold == k], w[fold == k]) for k in range(5)])
    for k, model in enumerate(models):
        afresh = fitted(moments(x[fold != k], y[fold != k], w[fold != k]))
        assert model.penalty == afresh.penalty
        torch.testing.assert_close(model(x), afresh(x), atol=1e-6, rtol=0)


def test_what_cannot_be_told_is_the_mean() -> None:
    x, y, w = drawn(n=N)
    idle = fitted(moments(x, torch.from_numpy(np.random.default_rng(9).normal(size=N)), w))
    assert isinstance(idle, Ridge) and idle(x).std() < 0.35
    same = fitted(moments(x, torch.full((N,), 2.0), w))
    torch.testing.assert_close(same(x), torch.full((N,), 2.0).double())
    two = fitted(moments(x[:2], y[:2], w[:2]))
    assert two.penalty == float("inf") and two.weights.abs().max() == 0, "two samples fit no line"
    assert fitted(Moments.none(F))(x).tolist() == [0.0] * N
