"""Exactness and determinism on the device, for benchmarks.gpu."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.gpu.models import scale, training
from benchmarks.gpu.sections import Bench, Finding
from mgd_core.autodiff.precision import FLOAT32
from mgd_core.engine.fingerprints import fingerprint
from mgd_core.engine.metagradient import Metagradient
from mgd_core.engine.replay import replay
from mgd_core.engine.reverse import reverse_step
from mgd_core.plans.actions import Plan
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import Adam, State
from testing import problems
from testing.oracles import NaiveRun, Problem, on_device, relative_error

STEPS, QUICK_STEPS = 40, 8
BUILDERS = {"two MLPs": problems.two_towers, "CLIP": problems.clip}


def exactness(bench: Bench) -> Iterator[Finding]:
    """Metagradients in float64 against naive autograd, both on the device: every plan must give the same."""
    worst, steps = 0.0, QUICK_STEPS if bench.quick else STEPS
    for name in BUILDERS:
        problem = _problem(name, bench.device, steps)
        naive = NaiveRun(problem).gradient()
        errors = []
        for plan, chunk, from_moments in ((keep_all(0, steps), None, True), (binomial(0, steps, 3), 3, False)):
            found = _replayed(problem, plan, chunk, from_moments)
            pairs = ((found.example, naive.example), (found.learning_rate.cpu(), naive.learning_rate))
            errors += [relative_error(*pair) for pair in pairs]
        worst = max(worst, *errors)
        text = f"{name}, {steps} steps, float64: relative error {max(errors):.1e}"
        yield Finding(text, {"rel_errors": {name: max(errors)}})
    yield Finding(f"worst: {worst:.1e}", {"max_rel_error": worst})


def determinism(bench: Bench) -> Iterator[Finding]:
    """A step, a reverse step and a replay, each twice: the same bits."""
    sizes = scale(bench.device, bench.quick)
    own = training(sizes.model, sizes.batches[-1], bench.device)
    learner = own.learner_for(sizes.batches[0], sizes.chunks[min(1, len(sizes.chunks) - 1)])
    with FLOAT32.switched():
        same = {"step": len({fingerprint(learner.step(own.state, 1)[0]) for _ in range(2)}) == 1}
        same["reverse step"] = len({_reversed(learner, own.state, own.after, own.adjoint) for _ in range(2)}) == 1
        text = ", ".join(f"{what} {'the same' if yes else 'NOT the same'}" for what, yes in same.items())
        yield Finding(f"{sizes.model}, float32, twice: {text}", {"repeats": same})
        steps = QUICK_STEPS if bench.quick else STEPS
        for name in BUILDERS:
            problem = _problem(name, bench.device, steps)
            plans = (keep_all(0, steps), binomial(0, steps, 3), binomial(0, steps, 3))
            found = [_replayed(problem, plan, 3, True) for plan in plans]
            equal = all(torch.equal(x.example, found[0].example) for x in found)
            equal &= all(torch.equal(x.learning_rate, found[0].learning_rate) for x in found)
            same[f"replay of {name}"] = equal
            yield Finding(f"replay of {name} by two plans, three times: {'the same' if equal else 'NOT the same'}")
    yield Finding(f"all the same: {all(same.values())}", {"repeats": same, "deterministic": all(same.values())})


def _problem(name: str, device: torch.device, steps: int) -> Problem:
    rate = {"two MLPs": 0.02, "CLIP": 0.001}[name]
    return on_device(BUILDERS[name](Adam(eps_root=1e-6, weight_decay=0.05), steps=steps, peak=rate), device)


def _replayed(problem: Problem, plan: Plan, chunk: int | None, from_moments: bool) -> Metagradient:
    learner = dataclasses.replace(problem.learner, chunk=chunk)
    target = problem.phi_and_gradient
    return replay(learner, problem.initial, target, plan, problem.pool_size, gradient_from_moments=from_moments)


def _reversed(learner: Learner, state: State, after: State, adjoint: State) -> tuple[bytes, ...]:
    found = reverse_step(learner, state, after, adjoint, 1, learner.batches(1))
    return (*fingerprint(found.adjoint), *fingerprint(State(found.weights, (found.gamma,))), _bytes(found.lr))


def _bytes(x: Tensor) -> bytes:
    return x.cpu().numpy().tobytes()
