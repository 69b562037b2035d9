"""What is found before a training, and the standing check of every reverse step."""

import dataclasses
import random
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgd_core.autodiff.derivatives import CurvatureProduct
from mgd_core.autodiff.directions import curvature
from mgd_core.autodiff.precision import Autocast
from mgd_core.autodiff.refusals import RefusedModel, modules_of
from mgd_core.engine import chance, step_checks
from mgd_core.engine.examination import examined, probe_way_of
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import ProbePoint, replay
from mgd_core.engine.reverse import InexactError, NonFiniteError, reverse_step
from mgd_core.errors import UserError
from mgd_core.plans.plan import keep_all
from mgd_core.training.learner import Batch
from mgd_core.training.optimizers import Adam
from testing import problems
from testing.exactness_zoo import as_if, classified
from testing.oracles import Problem, with_learner
from testing.samples import ADAM, CLIPPED, SGD, first_rows_target, in_float32, small
from testing.zoo_layers import Function, Wrapped, own_targets


def of_layer(f, *shapes: tuple[int, ...]) -> Problem:
    """A small training with ``f`` of (5, 8) rows and parameters of ``shapes`` in its middle."""
    return classified("one", lambda: Wrapped(Function(f, *shapes), (5, 8)), (5, 8))


def found(problem: Problem, small: bool = False):
    with as_if(small):
        return examined(problem.learner, problem.initial.theta, problem.learner.batches(0))


def run(problem: Problem, **options):
    plan = keep_all(0, problem.learner.steps)
    return replay(problem.learner, problem.initial, problem.phi_and_gradient, plan, problem.pool_size, **options)


def test_a_plain_model_may_go_either_way():
    finding = found(small())
    assert finding == ("either", torch.finfo(torch.float64).eps)


def test_double_backward_is_taken_where_forward_mode_is_wrong_and_told():
    with pytest.warns(UserWarning, match=r"by double backward, since forward mode is not exact.* off PyTorch's double"):
        assert found(of_layer(own_targets, (8, 6))).way == "double"


def test_forward_mode_is_taken_where_there_is_no_double_backward():
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0].detach() * g

        @staticmethod
        def jvp(ctx, t):
            return 2 * ctx.saved_tensors[0] * t

    assert found(of_layer(Forward.apply)).way == "forward"


def test_a_function_whose_second_derivative_is_wrong_both_ways_is_refused():
    class Constant(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

    with pytest.raises(RefusedModel, match=r"cannot be differentiated twice.*By forward mode: .*By double backward: "):
        found(of_layer(Constant.apply))


def test_numbers_of_python_and_numpy_are_draws_too():
    for draw in (random.random, np.random.random):
        with pytest.raises(RefusedModel, match=r"layer 'layer' \(Function\) draws at random"):
            found(of_layer(lambda x, draw=draw: x * (1 + draw())))


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: torch.rand(())], ids=["py", "np", "torch"])
def test_a_thread_that_draws_during_some_runs_does_not_refuse_a_model(draw):
    problem, runs = small(problems.classifier), []

    class Accompanied(problems.Classifier):
        """While its first runs last, another thread draws from the generators, which are the process's."""

        def encode(self, params, rows):
            runs.append(1)
            if len(runs) < chance.ATTEMPTS:
                other = threading.Thread(target=draw)
                other.start()
                other.join()
            return super().encode(params, rows)

    assert found(with_learner(problem, objective=Accompanied(problem.learner.objective.model))).way == "either"
    assert len(runs) > chance.ATTEMPTS, "it drew in the first runs only, and they were seen"


def test_chance_is_refused_when_each_run_draws_and_only_then():
    problem, runs = small(problems.classifier), []

    def drawing(times: int):
        runs.clear()

        def run() -> None:
            runs.append(1)
            if len(runs) <= times:
                random.random()

        return lambda: chance.check_repeatable(problem.learner.objective, problem.initial.theta, run)

    drawing(chance.ATTEMPTS - 1)()
    assert len(runs) == chance.ATTEMPTS
    with pytest.raises(RefusedModel, match="the objective draws at random"):
        drawing(10 * chance.ATTEMPTS)()


def test_ambient_generators_and_buffers_are_as_before():
    problem = small()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    found(problem)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            self.mean.mul_(0.9).add_(x.detach().mean((0, 1)))
            return x - self.mean

    problem = classified("keeping", lambda: Wrapped(nn.Identity(), (5, 8)), (5, 8))
    model = problem.learner.objective.model
    model.layer = Keeping().double()
    with pytest.raises(RefusedModel, match=r"buffer 'layer.mean' \(Keeping\) changes"):
        found(problem)
    assert not model.layer.mean.any()


def test_an_embedding_that_changes_its_weights_is_refused_before_they_change():
    problem = of_layer(lambda x, w: (w.data.mul_(0.5), x @ w)[1], (8, 6))
    before = problem.initial.theta.clone()
    with pytest.raises(RefusedModel, match="a parameter changes while the model runs"):
        found(problem)
    assert torch.equal(problem.initial.theta, before)


def test_features_of_other_shapes_in_parts_are_refused():
    class Squeezed(problems.Classifier):
        def encode(self, params, rows):
            return (super().encode(params, rows)[0].sum()[None],)

    problem = small(problems.classifier)
    objective = Squeezed(problem.learner.objective.model)
    with pytest.raises(RefusedModel, match="one row for each row"):
        found(with_learner(problem, objective=objective))


def test_a_model_is_looked_at_once():
    problem, asked = small(problems.classifier), []

    class Counting(problems.Classifier):
        def encode(self, params, rows):
            asked.append(len(rows[0]))
            return super().encode(params, rows)

    problem = with_learner(problem, objective=Counting(problem.learner.objective.model))
    found(problem)
    first = len(asked)
    found(problem)
    assert len(asked) == first > 4


def test_models_in_lists_and_in_other_objectives_are_found():
    model = nn.Linear(2, 2)
    inner = problems.Classifier(model)
    assert list(modules_of(Autocast(inner))) == [model]
    assert list(modules_of({"a": [model, (model,)]})) == [model]


def test_every_learner_refuses_chance_whoever_built_its_model():
    problem = small(problems.classifier)
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.1))
    with pytest.raises(RefusedModel, match=r"layer '1' \(Dropout\).*p=0.1"):
        with_learner(problem, objective=problems.Classifier(model))
    with_learner(problem, objective=problems.Classifier(model.eval()))


@pytest.mark.parametrize("optimizer", [ADAM, CLIPPED, SGD], ids=["adam", "clipped", "sgd"])
@pytest.mark.parametrize("chunk", [None, 3])
def test_the_standing_check_passes_by_far_in_both_precisions(optimizer, chunk, monkeypatch):
    monkeypatch.setattr(step_checks, "FINEST", 0.0)
    monkeypatch.setattr(step_checks, "ROUNDINGS", 100)  # of 1000
    for kind in (lambda p: p, in_float32):
        problem = kind(small(problems.two_towers, optimizer, steps=4))
        problem = dataclasses.replace(problem, learner=dataclasses.replace(problem.learner, chunk=chunk))
        target = first_rows_target(problem)
        replay(problem.learner, problem.initial, target, keep_all(0, 4), problem.pool_size)


def test_the_standing_check_names_step_and_layer(monkeypatch):
    problem = small(problems.classifier)
    right = curvature

    def wrong(objective, layout, theta, v, *others, **named) -> CurvatureProduct:
        """Along the third layer's weights the tangent is 1 % off, as one of a padding row was."""
        start = layout.offsets[2]
        v = v.clone()
        v[start : layout.offsets[3]] *= 1.01
        return right(objective, layout, theta, v, *others, **named)

    monkeypatch.setattr("mgd_core.training.learner.curvature", wrong)
    name = problem.learner.layout.names[2]
    with pytest.raises(InexactError, match=rf"step 11 is not exact.*Likely layer: that of parameter '{name}'"):
        run(problem)


def test_a_step_that_was_trained_on_other_rows_is_caught():
    problem = small(optimizer=SGD)
    state = problem.initial
    after, _ = problem.learner.step(state, 0)
    batch = problem.learner.batches(0)
    other = batch._replace(weights=batch.weights * 1.01)
    adjoint = type(state)(torch.ones_like(state.theta), tuple(torch.zeros_like(m) for m in state.moments))
    reverse_step(problem.learner, state, after, adjoint, 0, batch)
    with pytest.raises(InexactError, match="not what its state and batch give now"):
        reverse_step(problem.learner, state, after, adjoint, 0, other)


def test_a_cotangent_of_weights_that_is_not_finite_is_told(monkeypatch):
    right = curvature

    def spoiled(*arguments, **named) -> CurvatureProduct:
        found = right(*arguments, **named)
        return found._replace(weights=found.weights * torch.inf)

    monkeypatch.setattr("mgd_core.training.learner.curvature", spoiled)
    with pytest.raises(NonFiniteError, match="cotangent of the example weights became NaN or infinite at step 11"):
        run(small())


def test_probes_of_several_targets_are_told_apart():
    problem = small()
    theta = problem.initial.theta
    point = ProbePoint(3, theta, torch.ones(2, len(theta)).to(theta))
    with pytest.raises(UserError, match=r"of 2 targets.*gamma\[q\]"):
        Probe(problem.learner, point)


def test_probes_by_double_backward_give_the_same_scores(monkeypatch):
    problem = small(problems.clip)
    ids, theta = torch.arange(problem.pool_size), problem.initial.theta
    point = ProbePoint(3, theta, torch.randn(len(theta), generator=torch.Generator().manual_seed(0)).to(theta))
    learner = dataclasses.replace(problem.learner, chunk=5)
    forward = Probe(learner, point).scores(problem.pool, ids)
    monkeypatch.setattr("mgd_core.engine.probe.probe_way_of", lambda *_: "double")
    double = Probe(learner, point).scores(problem.pool, ids)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(forward, double, strict=True))


def test_probes_go_by_double_backward_where_forward_mode_is_wrong():
    problem = of_layer(own_targets, (8, 6))
    with pytest.warns(UserWarning, match="differentiated by double backward"):
        assert probe_way_of(problem.learner, problem.initial.theta, problem.learner.batches(0)) == "double"
    assert probe_way_of(small().learner, small().initial.theta, small().learner.batches(0)) == "forward"


def test_adam_without_memory_is_told_and_impossible_settings_are_refused():
    with pytest.warns(UserWarning, match="b2 = 0"):
        run(small(optimizer=Adam(b2=0.0, eps_root=1e-6), steps=2))
    with pytest.raises(UserError, match=r"b1=1\.0"):
        Adam(b1=1.0)


def test_a_batch_of_one_row_and_rows_without_weight_are_looked_at():
    problem = small(problems.classifier)
    plain = problem.learner.batches

    def one(t: int) -> Batch:
        batch = plain(t)
        return Batch(tuple(x[:1] for x in batch.rows), batch.ids[:1], 0 * batch.weights[:1])

    assert found(with_learner(problem, batches=one)).way == "either"
