"""Every kind of metaparameter on every model: against naive autograd, central differences, and what is allowed."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mgd_core.autodiff import directions
from mgd_core.engine.metaparameters import (
    ExampleWeights,
    Inputs,
    LearningRates,
    WeightDecays,
    check_simplex,
    control_points,
    onto_simplex,
)
from mgd_core.engine.replay import Metagradient, replay
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.training.optimizers import Adam
from testing import problems
from testing.oracles import NaiveRun, Problem, central_difference, relative_error, with_learner
from testing.samples import ADAM, CLIPPED, DEVICE, SGD, small

STEPS = 8
MODELS = [problems.classifier, problems.two_towers, problems.clip, problems.resnet, problems.vit, problems.gpt]


def made(build, optimizer=ADAM) -> Problem:
    return problems.with_float_pixels(small(build, optimizer, STEPS))


def inputs_of(problem: Problem) -> list[Inputs]:
    floats = [c for c, x in enumerate(problem.pool) if x.is_floating_point()]
    n = problem.pool_size
    return [Inputs(c, torch.arange(n), n, tuple(problem.pool[c].shape[1:])) for c in floats]


def run(problem: Problem, start: int = 0, kinds=(), **options) -> Metagradient:
    plan = binomial(start, STEPS, 3)
    how = {"metaparameters": (WeightDecays(), *kinds), **options}
    return replay(problem.learner, problem.initial, problem.phi_and_gradient, plan, problem.pool_size, **how)


def check(problem: Problem, start: int = 0) -> None:
    naive, kinds = NaiveRun(problem, start).gradient(), inputs_of(problem)
    found = run(problem, start, kinds)
    assert found.phi.item() == pytest.approx(naive.phi, rel=1e-12)
    expected = {"example": naive.example, "learning_rate": naive.learning_rate, "weight_decay": naive.weight_decay}
    expected |= {kind.name: naive.inputs[kind.column] for kind in kinds}
    assert found.sums.keys() == expected.keys()
    for name, g in expected.items():
        assert g.abs().max() > 0 and relative_error(found.sums[name], g) < 1e-12, name


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("forward", [False, True], ids=["double", "forward"])
def test_every_kind_agrees_with_naive_autograd_on_every_model(build, forward: bool, monkeypatch):
    """By double backward, and by a reverse pass over forward mode, which larger problems take."""
    if forward:
        monkeypatch.setitem(directions.DOUBLE_BELOW, DEVICE.type, 0)
    check(made(build))


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("forward", [False, True], ids=["double", "forward"])
def test_chunks_and_a_later_window(build, forward: bool, monkeypatch):
    if forward:
        monkeypatch.setitem(directions.DOUBLE_BELOW, DEVICE.type, 0)
    check(with_learner(made(build, CLIPPED), chunk=3), start=3)


@pytest.mark.parametrize("optimizer", [SGD, dataclasses.replace(ADAM, decoupled=False, clip_norm=0.5)])
def test_other_optimizers(optimizer):
    problem = made(problems.classifier, optimizer)
    mask = problem.learner.layout.matrix_mask(problem.initial.theta)
    check(with_learner(problem, optimizer=dataclasses.replace(optimizer, decay_mask=mask)))


def test_a_decay_of_zero_has_a_gradient_too():
    problem = made(problems.classifier, Adam(eps_root=1e-6))
    check(problem)
    check(with_learner(problem, weight_decays=torch.linspace(0, 0.2, STEPS, dtype=torch.float64)))


@pytest.mark.parametrize("options", [{"norm": "after", "pool": "max"}, {"norm": "none"}])
def test_variants_of_the_resnet(options):
    problem = small(problems.resnet, steps=3, **options)
    naive = NaiveRun(problem).gradient()
    (kind, labels) = inputs_of(problem)
    found = replay(
        problem.learner,
        problem.initial,
        problem.phi_and_gradient,
        keep_all(0, 3),
        problem.pool_size,
        metaparameters=(kind, labels),
    )
    assert relative_error(found.example, naive.example) < 1e-12
    assert relative_error(found.sums["inputs.0"], naive.inputs[0]) < 1e-12


@pytest.mark.parametrize("start", [0, 3])
def test_agrees_with_central_differences(start: int):
    problem = made(problems.classifier, ADAM)
    (kind,) = inputs_of(problem)
    found, draw = run(problem, start, (kind,)), torch.Generator().manual_seed(0)

    def phi(placed) -> Tensor:
        late = placed.batches if start == 0 else lambda t: (placed if t >= start else problem.learner).batches(t)
        trained = with_learner(problem, **{f.name: getattr(placed, f.name) for f in dataclasses.fields(placed)})
        trained = with_learner(trained, batches=late)
        state = trained.initial
        for t in range(STEPS):
            state, _ = trained.learner.step(state, t)
        return problem.phi_and_gradient(state.theta)[0]

    along = torch.randn(problem.pool[0].shape, generator=draw, dtype=torch.float64).to(DEVICE)
    by_inputs = central_difference(lambda z: phi(kind.placed(problem.learner, z)), problem.pool[0], along, 1e-4)
    assert by_inputs == pytest.approx((found.sums["inputs.0"] * along).sum().item(), rel=1e-7)
    decays = torch.full((STEPS,), 0.05, dtype=torch.float64)
    late = (torch.arange(STEPS) >= start).double()
    placed = WeightDecays().placed
    by_decay = central_difference(lambda z: phi(placed(problem.learner, z)), decays, late, 1e-3)
    assert by_decay == pytest.approx(found.sums["weight_decay"].sum().item(), rel=1e-7)


def test_some_examples_and_control_points_and_many_targets():
    """A part of the pool is the same part of the gradient; control points are the basis' transpose; Q targets stack."""
    problem = made(problems.resnet)
    whole, basis = run(problem, kinds=inputs_of(problem)), control_points(STEPS, 3)
    ids = torch.tensor([5, 2, 17])
    some = [Inputs(c, ids, problem.pool_size, tuple(problem.pool[c].shape[1:])) for c in (0, 1)]
    kinds = (*some, LearningRates(basis, "rates at points"))

    def twice(theta: Tensor) -> tuple[Tensor, Tensor]:
        phi, g = problem.phi_and_gradient(theta)
        return torch.stack([phi, 2 * phi]), torch.stack([g, 2 * g])

    plan = keep_all(0, STEPS)
    found = replay(problem.learner, problem.initial, twice, plan, problem.pool_size, metaparameters=kinds)
    for factor in (0, 1):
        for kind in some:
            expected = (1 + factor) * whole.sums[kind.name][ids]
            assert relative_error(found.sums[kind.name][factor], expected) < 1e-12
        at_points = (1 + factor) * basis.T @ whole.learning_rate.cpu()
        assert relative_error(found.sums["rates at points"][factor], at_points) < 1e-12


def test_what_is_placed_is_what_steps_read():
    problem = made(problems.classifier)
    learner, x = problem.learner, problem.pool[0]
    batch = learner.batches(4)
    (kind,) = (Inputs(0, torch.tensor([3, 1]), 24, (6,)),)
    shown = kind.placed(learner, x[[3, 1]]).batches(4)
    assert torch.equal(shown.rows[0], batch.rows[0]) and torch.equal(shown.rows[1], batch.rows[1])
    changed = kind.placed(learner, x[[3, 1]] + 1).batches(4).rows[0]
    expected = torch.isin(batch.ids, torch.tensor([3, 1], device=DEVICE))
    assert expected.any() and torch.equal((changed != batch.rows[0]).all(1), expected)
    threes = torch.full((24,), 3.0, device=DEVICE)
    assert torch.equal(ExampleWeights(24).placed(learner, threes).batches(4).weights, batch.weights + 2)
    points = LearningRates(control_points(STEPS, 2)).placed(learner, torch.tensor([0.0, 0.7]))
    assert torch.allclose(points.learning_rates, torch.linspace(0, 0.7, STEPS, dtype=torch.float64))


def test_projections():
    y = torch.randn(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = onto_simplex(y)
    check_simplex(p)
    assert torch.allclose(onto_simplex(p), p)
    others = torch.softmax(torch.randn(200, 5, dtype=torch.float64), 1)  # none is nearer
    assert ((y - p).norm(dim=1) <= (y[:, None] - others).norm(dim=2).min(1).values).all()
    pixels = Inputs(0, torch.arange(2), 2, (3,), low=0.0, high=255.0)
    assert pixels.projected(torch.tensor([[-1.0, 3.0, 300.0]])).tolist() == [[0.0, 3.0, 255.0]]
    assert LearningRates().projected(torch.tensor([-1e-3, 1e-3])).tolist() == [0.0, pytest.approx(1e-3)]


def test_bad_metaparameters_are_refused():
    problem = made(problems.classifier)
    with pytest.raises(ValueError, match="12 control points for a training of 8 steps"):
        control_points(8, 12)
    with pytest.raises(ValueError, match=r"1 soft labels lie outside the simplex, first row 1.*sum 1\.2"):
        check_simplex(torch.tensor([[0.5, 0.5], [0.6, 0.6]]))
    labels = Inputs(1, torch.arange(2), 24, (3,), simplex=True)
    with pytest.raises(ValueError, match="outside the simplex"):
        labels.placed(problem.learner, torch.tensor([[2.0, -1.0, 0.0], [1.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="8 steps needs z of shape"):
        LearningRates().placed(problem.learner, torch.ones(5))
    with pytest.raises(ValueError, match="basis of the control points is for 9 steps"):
        LearningRates(control_points(9, 3)).placed(problem.learner, torch.ones(3))
    with pytest.raises(ValueError, match="one name"):
        run(problem, kinds=(WeightDecays(),))
    with pytest.raises(ValueError, match=r"columns \[1\].*int64: only inputs of floating point"):
        run(problem, kinds=(Inputs(1, torch.arange(2), 24, ()),))
