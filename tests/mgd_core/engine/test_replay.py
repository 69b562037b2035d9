"""The whole traversal: against naive autograd, the same bytes for every plan, and its errors."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mgd_core.engine.guard import NondeterminismError
from mgd_core.engine.replay import Metagradient, replay, train
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.plans.actions import Tier
from mgd_core.plans.plan import Plan, binomial, keep_all
from mgd_core.training.learner import Batch
from mgd_core.training.optimizers import Adam, Bounds, State
from testing import problems
from testing.oracles import NaiveRun, Problem, central_difference, relative_error, with_learner
from testing.samples import ADAM, CLIPPED, DEVICE, SGD, first_rows_target, in_float32, small


def run(problem: Problem, plan: Plan | None = None, **options) -> Metagradient:
    plan = keep_all(0, problem.learner.steps) if plan is None else plan
    return replay(problem.learner, problem.initial, problem.phi_and_gradient, plan, problem.pool_size, **options)


def states(problem: Problem) -> list[State]:
    found = [problem.initial]
    for t in range(problem.learner.steps):
        found.append(problem.learner.step(found[-1], t)[0])
    return found


def check(problem: Problem, start: int, *found: Metagradient, bar: float = 1e-12) -> None:
    naive = NaiveRun(problem, start).gradient()
    for one in found:
        assert one.phi.item() == pytest.approx(naive.phi, rel=1e-12)
        assert relative_error(one.example, naive.example) < bar
        assert relative_error(one.learning_rate, naive.learning_rate) < bar


@pytest.mark.parametrize("build", [problems.classifier, problems.two_towers, problems.clip])
@pytest.mark.parametrize("optimizer", [ADAM, CLIPPED, SGD], ids=["adam", "clipped", "sgd"])
@pytest.mark.parametrize(("start", "chunk"), [(0, None), (5, 3)])
def test_agrees_with_naive_autograd(build, optimizer, start: int, chunk: int | None):
    steps = 8 if build is problems.clip else 12  # its naive graph is a hundred times as large
    problem = with_learner(small(build, optimizer, steps), chunk=chunk)
    ways = (run(problem, binomial(start, steps, 3), gradient_from_moments=moments) for moments in (True, False))
    check(problem, start, *ways)


def test_agrees_with_naive_autograd_on_a_convnext():
    """The demo's image tower: convolutions, layer norm over channels, GELU."""
    problem = small(problems.clip, steps=3, peak=1e-3, vision=problems.CONVNEXT)
    check(problem, 0, run(with_learner(problem, chunk=4), keep_all(0, 3)), bar=1e-10)


def test_decay_mask_is_differentiated():
    mask = small().learner.layout.matrix_mask(small().initial.theta)
    problem = small(optimizer=dataclasses.replace(ADAM, decay_mask=mask))
    check(problem, 0, run(problem))


def test_a_scale_that_is_clamped_after_every_step_is_differentiated():
    """As open_clip trains: some steps bring it back, some leave it inside, and the loss has no cap."""
    place = torch.tensor([small(problems.clip).learner.layout.place_of("logit_scale")], device=DEVICE)
    start = small(problems.clip).initial.theta[place].item()
    bounds = Bounds(place, start - 0.02, start + 0.002)
    problem = small(problems.clip, dataclasses.replace(ADAM, bounds=bounds), steps=6, peak=0.01)
    scales = [state.theta[place].item() for state in states(problem)]
    assert len({round(scale, 9) for scale in scales if scale in (bounds.low, bounds.high)}) >= 1, scales
    assert any(bounds.low < scale < bounds.high for scale in scales[1:]), scales
    check(problem, 0, run(problem, binomial(0, 6, 3)))


@pytest.mark.parametrize("start", [0, 4])
def test_agrees_with_central_differences(start: int):
    problem = small(optimizer=SGD)
    found, oracle = run(problem, keep_all(start, 12)), NaiveRun(problem, start)
    along = torch.linspace(-1, 1, problem.pool_size, dtype=torch.float64, device=DEVICE)
    by_weight = central_difference(oracle.phi, oracle.no_change(), along, 1e-3)
    assert by_weight == pytest.approx((found.example @ along).item(), rel=1e-8)
    rates = problem.learner.learning_rates
    by_rate = central_difference(lambda r: oracle.phi(oracle.no_change(), r), rates, rates, 1e-3)
    assert start > 0 or by_rate == pytest.approx((found.learning_rate.to(rates) @ rates).item(), rel=1e-8)


@pytest.mark.parametrize(("build", "slots"), [(problems.two_towers, (1, 2, 3, 5, 40)), (problems.clip, (2,))])
@pytest.mark.parametrize("start", [0, 5])
def test_every_plan_gives_the_same_bytes_in_float32(build, slots: tuple[int, ...], start: int):
    problem = in_float32(small(build))
    target = first_rows_target(problem)
    plans = [keep_all(start, 12), *(binomial(start, 12, number) for number in slots)]
    first, *rest = (
        replay(problem.learner, problem.initial, target, plan, problem.pool_size, probe_steps=[start, 8])
        for plan in plans
    )
    assert first.example.dtype == torch.float32 and first.example.abs().sum() > 0
    for other, plan in zip(rest, plans[1:], strict=True):
        assert (other.phi, other.train_losses) == (first.phi, first.train_losses)
        for a, b in zip(tensors(first), tensors(other), strict=True):
            assert torch.equal(a, b)
        assert (other.advances, other.peak_states) == (plan.advances, plan.peak_states)


def tensors(found: Metagradient) -> list[Tensor]:
    probes = [x for point in found.probes for x in (point.theta, point.gamma)]
    assert found.adjoint is not None
    return [found.example, found.learning_rate, found.visits, *found.final.tensors, *found.adjoint.tensors, *probes]


def test_counts_what_it_did():
    problem = small()
    seen: list[tuple[str, int]] = []
    found = run(problem, binomial(4, 12, 3), on=lambda what, t: seen.append((what, t)))
    batches = [problem.learner.batches(t) for t in range(4, 12)]
    assert found.visits.sum() == sum(len(b.ids) for b in batches) and (found.example[found.visits == 0] == 0).all()
    assert (found.learning_rate[:4] == 0).all() and (found.learning_rate[4:] != 0).all()
    assert found.reverse_steps == 8 and len(found.train_losses) == 12
    assert [t for what, t in seen if what == "reverse"] == list(range(11, 3, -1))
    assert sum(what == "step" for what, _ in seen) == 4 + found.advances + 1
    assert found.peak_states == {Tier.DEVICE: 3} and found.state_bytes == problem.initial.nbytes
    final, losses = train(problem.learner, problem.initial)
    assert losses == found.train_losses and torch.equal(final.theta, found.final.theta)


def test_the_plan_must_end_with_the_training():
    with pytest.raises(ValueError, match="ends at step 11, the training at step 12"):
        run(small(), keep_all(0, 11))


def test_probe_steps_lie_in_the_window():
    with pytest.raises(ValueError, match=r"\[3, 12\] lie outside the differentiated window \[4, 12\)"):
        run(small(), keep_all(4, 12), probe_steps=[3, 5, 12])


def test_a_batch_that_changes_on_replay_is_caught():
    problem = small()
    plain, asked = problem.learner.batches, [0] * 12

    def batches(t: int) -> Batch:
        batch = plain(t)
        asked[t] += 1
        changed = t == 2 and asked[t] > 1
        return batch._replace(weights=batch.weights * 1.0001) if changed else batch

    with pytest.raises(NondeterminismError, match=r"before step 3 was recomputed and differs.*Likely causes"):
        run(with_learner(problem, batches=batches), binomial(0, 12, 3))


def spoiled(problem: Problem, step: int) -> Problem:
    plain = problem.learner.batches

    def batches(t: int) -> Batch:
        batch = plain(t)
        return batch._replace(weights=batch.weights * float("nan")) if t == step else batch

    return with_learner(problem, batches=batches)


def test_a_nan_loss_names_its_step():
    with pytest.raises(NonFiniteError, match=r"training loss became nan at step 5.*reject"):
        run(spoiled(small(), 5))
    with pytest.raises(NonFiniteError, match="at step 11"):
        run(spoiled(small(), 11))


def test_a_cotangent_that_is_not_finite_names_step_and_parameter():
    """Without eps_root the root's derivative is infinite where a moment is zero: tokens that never occur."""
    problem = small(problems.clip, Adam(eps_root=0.0))
    with pytest.raises(NonFiniteError, match=r"at step 11, first in parameter 'token_embedding.weight'.*eps_root"):
        run(problem)


def test_a_target_that_is_not_finite_is_refused():
    problem = small()

    def target(theta: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor(1.0), theta * float("inf")

    with pytest.raises(NonFiniteError, match=r"gradient of the target.*at step 11"):
        replay(problem.learner, problem.initial, target, keep_all(0, 12), problem.pool_size)
