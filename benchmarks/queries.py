"""What do 16 targets, or 8 tasks, cost in one sweep, against one target?

`python -m benchmarks.queries` times reverse steps that carry one adjoint, and 16 at once
(mgd_core.autodiff.directions). One thread, CPU seconds, both in turn within one run; ratios are of medians. 16 single
sweeps cost 16, of course.

* attribution's size: an MLP 64-24-10 on digit-like rows, batches of 64 (key `cost_16_over_1`; bar: 6);
* an MLP 64-640-640-10, batches of 64: arithmetic begins to be the cost;
* the demo's CLIP (catalogs/models/fashion.json), batches of 256: arithmetic is all the cost. Each direction takes 6
  matrix products through the graph of the gradient, whose own 3 are shared, where a single one takes 8; so 16 cost at
  least 99 / 8 = 12.4 times one, whatever the implementation.

Key `cost_8_over_1`: the same CLIP with 8 cotangents, as many tasks as are swept by themselves; bound (6 Q + 2) / 8 =
6.25, bar: 1.05 times that. `per_task_error`: on a small CLIP towards four tasks in float64, the shares of three groups
of them in one sweep, added up, against the metagradient of their sum. Bar: 1e-10.

`max_rel_error` compares whole sweeps in float64 (weights, learning rates, adjoint of the first state): 16 targets in
one `replay` against 16 replays, on the MLP, on two towers and on a small CLIP, with and without chunks. Bar: 1e-12.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks import reverse_step
from benchmarks._envelope import emit
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.engine.replay import Metagradient, replay
from mgd_core.engine.reverse import reverse_step as reverse
from mgd_core.plans.plan import keep_all
from mgd_core.training.determinism import deterministic
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam, Optimizer, State
from mgd_core.training.schedules import constant
from testing import problems
from testing.many_tasks import many_tasks
from testing.oracles import relative_error, with_learner
from testing.problems import Classifier

QUERIES, TASKS, BATCH, POOL = 16, 8, 64, 1024
MLPS = {"MLP 64-24-10": (64, 24, 10), "MLP 64-640-640-10": (64, 640, 640, 10)}
CLIP = "CLIP, fashion"
BAR = 6.0
WARM_UP = 1
REPEATS = {"MLP 64-24-10": (60, 30), "MLP 64-640-640-10": (20, 5), CLIP: (5, 2)}  # in full, quick


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds of a reverse step: median over the repeats."""

    model: str
    parameters: int
    step: float
    one: float
    sixteen: float
    eight: float

    @property
    def ratio(self) -> float:
        """Reverse steps for one target that a reverse step for 16 costs."""
        return self.sixteen / self.one


def main() -> None:
    """Print both tables, the ratio and the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and shorter sweeps")
    quick = parser.parse_args().quick
    with deterministic(1):
        costs = [measure(name, repeats[quick]) for name, repeats in REPEATS.items()]
        show(costs)
        errors = compare(steps=6 if quick else 30)
        shared = per_task_error(steps=6 if quick else 30)
        print(f"8 tasks in one sweep of the CLIP: {costs[-1].eight / costs[-1].one:.2f} times one")
        print(f"shares of tasks, added up: relative error {shared:.1e}")
        for what, error in errors.items():
            print(f"{what:<34} largest relative error {error:.1e}")
        figures = {
            "cost_16_over_1": costs[0].ratio,
            "max_rel_error": max(errors.values()),
            "bar": BAR,
            "cost_16_over_1_clip": costs[-1].ratio,
            "cost_8_over_1": costs[-1].eight / costs[-1].one,
            "bar_8": 1.05 * (6 * TASKS + 2) / 8,
            "per_task_error": shared,
            "rows": [asdict(cost) | {"ratio": cost.ratio} for cost in costs],
            "errors": errors,
        }
        emit("queries", figures)


def show(costs: list[Cost]) -> None:
    """The table, in CPU milliseconds."""
    print("CPU milliseconds              training       reverse step for")
    print("model              parameters     step        1       16   16 / 1  of 16")
    for c in costs:
        print(
            f"{c.model:<18}{c.parameters:>11,}{c.step:>9.2f}{c.one:>9.2f}{c.sixteen:>9.2f}{c.ratio:>9.2f}"
            f"{c.sixteen / QUERIES:>7.2f}"
        )


def measure(name: str, repeats: int) -> Cost:
    """A model's training step, and its reverse steps for one target and for 16 at once."""
    learner, state = reverse_step.build("fashion") if name == CLIP else mlp(MLPS[name])
    after, _ = learner.step(state, 0)
    state, after = after, learner.step(after, 1)[0]
    lam = _adjoints(after)
    single, half = (State(lam.theta[at], tuple(m[at] for m in lam.moments)) for at in (0, slice(TASKS)))
    batch = learner.batches(1)
    calls: list[Callable[[], object]] = [
        lambda: learner.step(state, 1),
        lambda: reverse(learner, state, after, single, 1, batch),
        lambda: reverse(learner, state, after, lam, 1, batch),
        lambda: reverse(learner, state, after, half, 1, batch),
    ]
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(WARM_UP + repeats):
        for own, call in zip(seconds, calls, strict=True):
            own.append(_cpu_seconds(call))
    return Cost(name, learner.layout.length, *(1e3 * median(own[WARM_UP:]) for own in seconds))


def mlp(widths: tuple[int, ...], optimizer: Optimizer | None = None, steps: int = 4) -> tuple[Learner, State]:
    """A classifier of digit-like rows: 64 values in [0, 1], ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.GELU()]
        model = nn.Sequential(*layers[:-1])
    layout = ParameterLayout.of(model)
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(widths[-1], (POOL,), generator=draw)
    centres = torch.rand(widths[-1], widths[0], generator=draw)
    rows = (0.6 * centres[labels] + 0.4 * torch.rand(POOL, widths[0], generator=draw), labels)
    order = torch.randint(POOL, (steps, BATCH), generator=draw)

    def batch(t: int) -> Batch:
        return Batch(tuple(x[order[t]] for x in rows), order[t], torch.ones(BATCH))

    optimizer = Adam(eps_root=1e-8, weight_decay=0.01) if optimizer is None else optimizer
    learner = Learner(Classifier(model), layout, optimizer, constant(steps, 1e-3), batch)
    return learner, optimizer.init(layout.flatten(dict(model.named_parameters())).detach())


def compare(steps: int) -> dict[str, float]:
    """Largest relative error of 16 targets in one sweep against 16 sweeps, by problem and chunk, in float64."""
    optimizer = Adam(eps_root=1e-6, weight_decay=0.05)
    errors = {}
    for build in (problems.classifier, problems.two_towers, problems.clip):
        problem = build(optimizer, steps=steps)
        for chunk in (None, 3):
            learner = with_learner(problem, chunk=chunk).learner
            name = f"{problem.name}, {'whole batch' if chunk is None else f'chunks of {chunk}'}"
            errors[name] = _error(learner, problem.initial, problem.pool)
    return errors


def per_task_error(steps: int) -> float:
    """Relative error of the added shares of three groups of tasks against the metagradient of their sum."""
    problem = many_tasks(Adam(eps_root=1e-6, weight_decay=0.05), steps=steps, peak=1e-3)
    groups = [("digits",), ("classes", "captions"), ("labels",)]

    def shares(theta: Tensor) -> tuple[Tensor, Tensor]:
        return problem.tasks.targets(theta, groups)

    plan, n = keep_all(0, steps), problem.pool_size
    each, whole = (replay(problem.learner, problem.initial, t, plan, n) for t in (shares, problem.phi_and_gradient))
    return relative_error(each.example.sum(0), whole.example)


def _error(learner: Learner, initial: State, pool: tuple[Tensor, ...]) -> float:
    """Target q is the loss of the pool's examples, each weighted by a draw of its own."""
    n = len(pool[0])
    weights = torch.rand(QUERIES, n, generator=torch.Generator().manual_seed(7), dtype=initial.theta.dtype)

    def targets(theta: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        theta = theta.detach().requires_grad_(True)
        with torch.enable_grad():
            params = learner.layout.unflatten(theta)
            phi = chosen @ learner.objective.losses(params, learner.objective.encode(params, pool)) / n
            rows = [torch.autograd.grad(x, theta, retain_graph=True)[0] for x in phi.reshape(-1)]
        return phi.detach(), torch.stack(rows) if phi.ndim else rows[0]

    def sweep(chosen: Tensor) -> Metagradient:
        return replay(learner, initial, lambda theta: targets(theta, chosen), keep_all(0, learner.steps), n)

    together = _tensors(sweep(weights))
    single = [_tensors(sweep(weights[q])) for q in range(QUERIES)]
    return max(
        relative_error(several[q], one)
        for q in range(QUERIES)
        for several, one in zip(together, single[q], strict=True)
    )


def _tensors(found: Metagradient) -> list[Tensor]:
    assert found.adjoint is not None
    return [found.example, found.learning_rate, found.adjoint.theta]


def _adjoints(state: State) -> State:
    draw = torch.Generator().manual_seed(3)
    tensors = [1e-2 * torch.randn(QUERIES, len(x), generator=draw) for x in state.tensors]
    return State(tensors[0], tuple(tensors[1:]))


def _cpu_seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
