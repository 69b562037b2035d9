"""A probe's g_i against naive autograd and central differences of adding eps l_i at the probe step."""

import pytest
import torch

from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import ProbePoint, replay
from mgd_core.plans.plan import binomial
from testing import problems
from testing.oracles import Joining, NaiveRun, Problem, central_difference, relative_error, with_learner
from testing.samples import ADAM, CLIPPED, DEVICE, SGD, small


def points(problem: Problem, start: int, steps: list[int]) -> list[ProbePoint]:
    plan = binomial(start, problem.learner.steps, 3)
    target = problem.phi_and_gradient
    return replay(problem.learner, problem.initial, target, plan, problem.pool_size, steps).probes


@pytest.mark.parametrize("build", [problems.classifier, problems.two_towers, problems.clip])
@pytest.mark.parametrize("optimizer", [ADAM, CLIPPED, SGD], ids=["adam", "clipped", "sgd"])
def test_agrees_with_naive_autograd(build, optimizer):
    problem = small(build, optimizer, steps=10)
    ids = torch.arange(problem.pool_size, device=DEVICE)
    for point in points(problem, 2, [2, 6]):
        losses, g = Probe(problem.learner, point).scores(problem.pool, ids)
        join = Joining(point.step, ids, torch.zeros(len(ids), dtype=torch.float64, device=DEVICE))
        naive = NaiveRun(problem, 2).gradient(join).joining
        assert naive is not None and relative_error(g, naive) < 1e-10
        assert losses.shape == g.shape == ids.shape and (losses > 0).all()


def test_agrees_with_central_differences():
    problem = small(optimizer=SGD)
    (point,) = points(problem, 4, [6])
    ids = torch.tensor([3, 20], device=DEVICE)
    _, g = Probe(problem.learner, point).scores(tuple(x[ids] for x in problem.pool), ids)
    oracle = NaiveRun(problem, 4)

    def phi(eps: torch.Tensor) -> torch.Tensor:
        return oracle.phi(oracle.no_change(), join=Joining(6, ids, eps))

    for i in range(2):
        along = torch.eye(2, dtype=torch.float64, device=DEVICE)[i]
        assert central_difference(phi, 0 * along, along, 1e-4) == pytest.approx(g[i].item(), rel=1e-7)


def test_a_score_does_not_depend_on_what_is_scored_beside_it():
    problem = small(problems.clip)
    (point,) = points(problem, 8, [9])
    ids = torch.arange(problem.pool_size, device=DEVICE)
    _, whole = Probe(problem.learner, point).scores(problem.pool, ids)
    probe = Probe(with_learner(problem, chunk=3).learner, point)
    shuffled = torch.randperm(len(ids)).to(DEVICE)
    parts = [probe.scores(tuple(x[part] for x in problem.pool), part)[1] for part in shuffled.split(5)]
    assert relative_error(torch.cat(parts), whole[shuffled]) < 1e-12


def test_another_reference_batch_may_be_given():
    problem = small()
    (point,) = points(problem, 8, [9])
    ids = torch.arange(problem.pool_size, device=DEVICE)
    own = Probe(problem.learner, point).scores(problem.pool, ids)[1]
    same = Probe(problem.learner, point, problem.learner.batches(9)).scores(problem.pool, ids)[1]
    other = Probe(problem.learner, point, problem.learner.batches(3)).scores(problem.pool, ids)[1]
    assert torch.equal(own, same) and not torch.equal(own, other)
