"""Projected descent on functions whose least allowed point is known."""

import pytest
import torch
from torch import Tensor

from mgd_core.descent.projected_descent import Descent, advance, begin
from mgd_core.engine.metaparameters import Inputs, LearningRates


def run(kind, f, z: Tensor, steps: int, size: float = 0.3, scale: float | None = None) -> list[Descent]:
    def value(z: Tensor) -> tuple[float, Tensor]:
        z = z.clone().requires_grad_(True)
        phi = f(z)
        return phi.item(), torch.autograd.grad(phi, z)[0]

    found = [begin(kind, z, *value(z), size, scale)]
    for _ in range(steps):
        found.append(advance(kind, found[-1], *value(found[-1].candidate), scale))
    return found


def test_it_finds_the_least_allowed_point():
    """The best rates are 1 and 0: the second would be negative."""
    found = run(LearningRates(), lambda z: (z[0] - 1) ** 2 + (z[1] + 1) ** 2, torch.tensor([3.0, 2.0]), 60)
    assert found[-1].z.tolist() == pytest.approx([1.0, 0.0], abs=1e-2)
    losses = [d.phi for d in found]
    assert losses == sorted(losses, reverse=True) and all((d.candidate >= 0).all() for d in found)


def test_probabilities_stay_on_the_simplex():
    kind = Inputs(1, torch.arange(2), 2, (3,), simplex=True)
    z = torch.full((2, 3), 1 / 3, dtype=torch.float64)
    wanted = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]], dtype=torch.float64)
    found = run(kind, lambda z: (z - wanted).square().sum(), z, 60, scale=1.0)
    assert torch.allclose(found[-1].z, wanted, atol=1e-2)
    assert all(torch.allclose(d.candidate.sum(1), torch.ones(2, dtype=torch.float64)) for d in found)


def test_a_target_that_does_not_depend_on_it_is_refused():
    with pytest.raises(ValueError, match="does not depend on these metaparameters"):
        begin(LearningRates(), torch.ones(3), 0.0, torch.zeros(3), 0.1)
