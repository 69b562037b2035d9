"""Zero-shot targets: the best temperature, the loss and its gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mgd_core.models.clip import ClipObjective
from mgd_core.models.zeroshot import Temperature, ZeroShotTask, best_scale
from testing import problems
from testing.oracles import Problem, central_difference
from testing.samples import small


def cosines(seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    cos, labels = 2 * torch.rand(50, 7, generator=draw, dtype=torch.float64) - 1, torch.arange(50) % 7
    cos[torch.arange(50), labels] += 0.2
    return cos, labels


def golden(f, low: float, high: float) -> float:
    """Minimiser of a unimodal function by golden-section search."""
    ratio = (5**0.5 - 1) / 2
    while high - low > 1e-6 * high:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if f(a) < f(b) else (a, high)
    return (low + high) / 2


@pytest.mark.parametrize("seed", range(4))
def test_best_scale_minimises_the_loss(seed: int):
    cos, labels = cosines(seed)
    found = best_scale(cos, labels)
    assert found == pytest.approx(golden(lambda s: F.cross_entropy(s * cos, labels).item(), 1e-3, 50), rel=1e-3)
    scale = torch.tensor(found, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(scale * cos, labels).backward()
    assert abs(scale.grad.item()) < 1e-12


def test_best_scale_stays_within_its_bounds():
    """Where all answers are right the loss falls for ever: the scale at which float64 holds it for zero will do."""
    perfect = torch.eye(5, dtype=torch.float64)
    assert F.cross_entropy(best_scale(perfect, torch.arange(5)) * perfect, torch.arange(5)).item() < 1e-15
    assert best_scale(perfect / 100, torch.arange(5)) == pytest.approx(1e3)
    assert best_scale(-perfect, torch.arange(5)) == pytest.approx(1e-3)


def task(problem: Problem, temperature: Temperature) -> ZeroShotTask:
    assert isinstance(problem.learner.objective, ClipObjective)
    images, tokens = problem.pool
    classes = tokens[:8].reshape(4, 2, -1)
    labels = torch.arange(24, device=images.device) % 4
    return ZeroShotTask(problem.learner.objective, problem.learner.layout, images, labels, classes, temperature)


@pytest.mark.parametrize("temperature", ["best", "model", 0.05])
def test_gradient_agrees_with_differences(temperature: Temperature):
    """For `best` that is the envelope theorem: phi is minimised over the scale at every theta again."""
    problem = small(problems.clip)
    target, theta = task(problem, temperature).target, problem.initial.theta
    _, gradient = target(theta)
    along = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(theta)
    found = central_difference(lambda x: target(x)[0], theta, along / along.norm(), 1e-3)
    assert found == pytest.approx((gradient @ along / along.norm()).item(), rel=1e-6)


def test_best_is_no_worse_than_any_other_temperature():
    problem = small(problems.clip)
    theta = problem.initial.theta
    best, model, fixed = (task(problem, t).score(theta) for t in ("best", "model", 0.05))
    assert best.loss <= min(model.loss, fixed.loss) and best.accuracy == model.accuracy == fixed.accuracy
    assert fixed.scale == pytest.approx(20) and model.scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert best.loss == pytest.approx(task(problem, "best").target(theta)[0].item())


def test_classes_are_means_of_their_templates():
    problem = small(problems.clip)
    params, found = problem.learner.layout.unflatten(problem.initial.theta), task(problem, "best")
    each = found.objective.encode_texts(params, found.class_tokens[1])
    expected = each.mean(0) / each.mean(0).norm()
    torch.testing.assert_close(found.class_features(params)[1], expected)
    predicted = (found.objective.encode_images(params, found.images) @ found.class_features(params).T).argmax(1)
    assert found.score(problem.initial.theta).accuracy == (predicted == found.labels).double().mean().item()
