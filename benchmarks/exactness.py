"""Is the metagradient exact? The engine against naive autograd through all 40 steps, in float64.

`python -m benchmarks.exactness` compares, for small trainings with weighted cross-entropy (an MLP, a ResNet-9, a ViT, a
GPT, LoRA on a GPT-NeoX of transformers) and weighted InfoNCE (two MLPs and an open_clip CLIP; `testing.problems`)
under Adam and SGD; once more the CLIP towards many tasks (classes, classes that weigh the same, captions, labels), each
with a weight, in a unit and at its best temperature (`testing.many_tasks`):

* the gradient of phi by every kind of metaparameter (mgd_core.engine.metaparameters) with one reverse pass through the
graph
  of the whole run (`testing.oracles`: plain PyTorch, none of the engine's code), for every plan, slot count, chunk
  size and source of the gradient (read back from the moments, or computed again), and with central differences. Kinds:
  example weights; learning rates; weight decays; inputs of floating point, which are pixels or vectors, the soft
  labels of ResNet-9 and ViT, and the GPT's weight of each token;
* a probe's g_i with naive autograd and central differences of phi with eps l_i added to the loss of step k;
* a zoo of layers and models (`testing.exactness_zoo`): exact, or refused before the first step by the true reason;
* plans, tiers and resume points with `keep_all` in memory, bit for bit, in float32 and float64 (`benchmarks.bitwise`).

Errors are Euclidean: |found - expected| / |expected|. **floor** is what rounding alone does: the same naive autograd
with the rows of each batch in another order. Where a training amplifies rounding, nobody gets below it: the row marked
*hard* (a tiny eps_root, clipping, twenty times the learning rate) shows that, and is left out of the bars.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import bitwise
from benchmarks._envelope import emit
from mgd_core.engine.metaparameters import Inputs, WeightDecays
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import Metagradient, replay
from mgd_core.plans.plan import Plan, binomial, keep_all
from mgd_core.training.optimizers import Adam, Optimizer, Sgd
from testing import exactness_zoo, problems, zoo_layers, zoo_models
from testing.many_tasks import many_tasks
from testing.oracles import (
    Joining,
    NaiveGradient,
    NaiveRun,
    Problem,
    relative_error,
    settled_difference,
    with_learner,
)

STEPS, LATE, LATEST = 40, 15, 34
DEEP = (problems.resnet, problems.vit, problems.gpt, problems.tuned)
SLOTS = (1, 2, 3, 7, 40)
CHUNKS = (None, 1, 3, 7)
OPTIMIZERS: dict[str, Optimizer] = {
    "Adam root 1e-8 clip": Adam(eps_root=1e-8, weight_decay=0.05, clip_norm=1.0),
    "Adam root 1e-6": Adam(eps_root=1e-6, weight_decay=0.05),
    "Adam coupled": Adam(eps_root=1e-8, weight_decay=0.01, decoupled=False),
    "SGD": Sgd(momentum=0.9),
    "SGD Nesterov clip": Sgd(momentum=0.9, nesterov=True, weight_decay=0.01, clip_norm=1.0),
}
PEAKS: dict[Callable[..., Problem], dict[type, float]] = {  # learning rates at which 40 steps fit the pool in part
    problems.classifier: {Adam: 0.02, Sgd: 0.1},
    problems.two_towers: {Adam: 0.02, Sgd: 0.05},
    problems.clip: {Adam: 0.001, Sgd: 0.02},
    many_tasks: {Adam: 0.001, Sgd: 0.02},
    problems.resnet: {Adam: 0.01, Sgd: 0.1},
    problems.vit: {Adam: 0.003, Sgd: 0.05},
    problems.gpt: {Adam: 0.002, Sgd: 0.1},
    problems.tuned: {Adam: 0.01, Sgd: 0.03},
}
# Steps of the central differences: error O(h^4) and rounding / h. Rates are moved in proportion to themselves. A
# candidate at the first step of Adam meets an update that is nearly a sign, so that phi bends within 1e-3 of it.
STEP, INPUT_STEP = 3e-4, 1e-5
PROBE_STEP = {Adam: 2e-6, Sgd: 1e-4}
Steps = tuple[int, ...]


class Variant(NamedTuple):
    """One way to compute the same metagradient."""

    plan: Plan
    chunk: int | None
    from_moments: bool


@dataclass(frozen=True)
class Row:
    """Worst errors of a problem under an optimizer and a window."""

    problem: str
    optimizer: str
    start: int
    variants: int
    floor: float
    weights: float
    rates: float
    decays: float
    inputs: float
    differences: float | None
    probe: float | None
    probe_differences: float | None
    seconds: float

    @property
    def exact(self) -> float:
        """Largest of the errors of all kinds."""
        return max(self.weights, self.rates, self.decays, self.inputs)


def variants(start: int, everything: bool, quick: bool) -> list[Variant]:
    """All combinations, or every value of each setting beside the plain ones and a few combinations.

    Plans give the same bytes (benchmarks.bitwise), so little can hide in the combinations left out.
    """
    plans = [keep_all(start, STEPS), *(binomial(start, STEPS, s) for s in (3,) * quick or SLOTS)]
    if quick:
        return [Variant(plans[0], None, True), Variant(plans[1], 3, False)]
    if everything:
        return [*(Variant(plan, chunk, True) for plan in plans for chunk in CHUNKS), Variant(plans[0], None, False)]
    by_plan = [Variant(plan, None, True) for plan in plans]
    by_chunk = [Variant(plans[0], chunk, True) for chunk in CHUNKS[1:]]
    mixed = [Variant(plans[0], None, False), Variant(plans[3], 3, False)]
    return by_plan + by_chunk + mixed


def configurations(quick: bool) -> Iterator[tuple[Callable[..., Problem], str, int, bool]]:
    """Problem, optimizer, window start, and whether all combinations of settings are run."""
    first, second, _, sgd, _ = OPTIMIZERS
    if quick:
        yield from ((problems.classifier, name, 0, False) for name in (first, sgd))
        yield from ((problems.two_towers, second, start, False) for start in (0, LATE))
        yield from ((build, first, LATEST, False) for build in (problems.clip, many_tasks, *DEEP))
        return
    for build, late in ((problems.classifier, first), (problems.two_towers, sgd)):
        yield from ((build, name, 0, build is problems.two_towers and name == second) for name in OPTIMIZERS)
        yield build, late, LATE, False
    for build in (problems.clip, many_tasks, *DEEP):
        yield from ((build, name, 0, False) for name in (first, sgd))
        yield build, second, LATE, False


def main() -> None:
    """Print a table and the worst figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer configurations: under 45 s")
    parser.add_argument("--zoo", action="store_true", help="the zoo alone")
    arguments = parser.parse_args()
    quick = arguments.quick
    torch.set_num_threads(1)  # the problems are too small for more
    if arguments.zoo:
        emit("exactness", zoo(quick))
        return
    print(
        f"{'problem':<21}{'optimizer':<21}{'window':<9}{'ways':>4}{'floor':>9}{'weights':>9}{'rates':>9}{'decays':>9}"
        f"{'inputs':>9}{'central':>9}{'probe':>9}{'central':>9}{'s':>6}"
    )
    rows = []
    for build, name, start, everything in configurations(quick):
        problem = make(build, OPTIMIZERS[name])
        probe_steps: Steps = () if start == LATEST else (start,) if quick else (start, STEPS - 10)
        rows.append(measure(problem, name, start, variants(start, everything, quick), probe_steps))
        show(rows[-1])
    hard = measure(hard_problem(), "*hard* root 1e-14", 0, [Variant(keep_all(0, STEPS), None, True)])
    show(hard)
    compared, differing = bitwise.mismatches(quick)
    print(
        f"plans, tiers and resume points against keep_all in memory: {compared} compared, {differing} with other bits"
    )
    bits = {"bitwise_comparisons": compared, "bitwise_mismatches": differing}
    emit("exactness", figures(rows, hard) | bits | zoo(quick))


def zoo(quick: bool) -> dict[str, object]:
    """Run the zoo, or the part of it that was wrong once."""
    cases = zoo_layers.DEFECTS if quick else [*zoo_layers.cases(), *zoo_models.cases()]
    return exactness_zoo.zoo_figures(exactness_zoo.run_zoo(cases))


def figures(rows: list[Row], hard: Row) -> dict[str, object]:
    """The JSON figures; bars: 1e-12, 1e-6 and 1e-10."""
    return {
        "max_rel_error": max(row.exact for row in rows),
        "max_fd_error": max(e for row in rows for e in (row.differences, row.probe_differences) if e is not None),
        "probe_rel_error": max(row.probe for row in rows if row.probe is not None),
        "max_floor": max(row.floor for row in rows),
        "hard": {"rel_error": hard.exact, "floor": hard.floor},
        "comparisons": sum(row.variants for row in rows),
        "rows": [dataclasses.asdict(row) for row in (*rows, hard)],
    }


def show(row: Row) -> None:
    """One line of the table."""
    exact = (row.floor, row.weights, row.rates, row.decays, row.inputs)
    errors = (*exact, row.differences, row.probe, row.probe_differences)
    print(
        f"{row.problem:<21}{row.optimizer:<21}{f'{row.start}..{STEPS}':<9}{row.variants:>4}"
        + "".join(f"{'-':>9}" if e is None else f"{e:>9.1e}" for e in errors)
        + f"{row.seconds:>6.1f}",
        flush=True,
    )


def make(build: Callable[..., Problem], optimizer: Optimizer) -> Problem:
    """A problem at its learning rate; weight decay on matrices only, as in a real run."""
    problem = problems.with_float_pixels(build(optimizer, steps=STEPS, peak=PEAKS[build][type(optimizer)]))
    mask = problem.learner.layout.matrix_mask(problem.initial.theta)
    return with_learner(problem, optimizer=dataclasses.replace(optimizer, decay_mask=mask))  # type: ignore[type-var]


def hard_problem() -> Problem:
    """An ill-conditioned training: eps_root far below the squared gradients, and a large learning rate."""
    problem = problems.clip(Adam(b2=0.95, eps_root=1e-14, clip_norm=1.0), steps=STEPS, peak=0.02)
    return problems.with_float_pixels(problem)


def measure(problem: Problem, optimizer: str, start: int, ways: list[Variant], probe_steps: Steps = ()) -> Row:
    """All errors of one problem; without ``probe_steps`` neither probes nor central differences."""
    began = time.perf_counter()
    naive = NaiveRun(problem, start).gradient()
    again = NaiveRun(problem, start, shuffled=True).gradient()
    found = [run(problem, way) for way in ways]
    probe, probe_differences = probe_errors(problem, start, probe_steps) if probe_steps else (None, None)
    return Row(
        problem=problem.name,
        optimizer=optimizer,
        start=start,
        variants=len(ways),
        floor=max(relative_error(a, b) for a, b in zip(again[1:3], naive[1:3], strict=True)),
        weights=max(relative_error(m.example, naive.example) for m in found),
        rates=max(relative_error(m.learning_rate, naive.learning_rate) for m in found),
        decays=max(relative_error(m.sums["weight_decay"], naive.weight_decay) for m in found),
        inputs=max(relative_error(m.sums[f"inputs.{c}"], g) for m in found for c, g in naive.inputs.items()),
        differences=difference_error(problem, start, naive) if probe_steps else None,
        probe=probe,
        probe_differences=probe_differences,
        seconds=time.perf_counter() - began,
    )


def run(problem: Problem, way: Variant, probe_steps: Steps = ()) -> Metagradient:
    """The engine's answer."""
    learner = dataclasses.replace(problem.learner, chunk=way.chunk)
    n = problem.pool_size
    columns = {c: x.shape[1:] for c, x in enumerate(problem.pool) if x.is_floating_point()}
    kinds = (WeightDecays(), *(Inputs(c, torch.arange(n), n, tuple(shape)) for c, shape in columns.items()))
    return replay(
        learner,
        problem.initial,
        problem.phi_and_gradient,
        way.plan,
        n,
        probe_steps,
        way.from_moments,
        metaparameters=kinds,
    )


def difference_error(problem: Problem, start: int, naive: NaiveGradient) -> float:
    """Central differences of phi by two example weights, and by a random direction of each kind."""
    oracle, rates = NaiveRun(problem, start), problem.learner.learning_rates
    draw = torch.Generator().manual_seed(6)
    random = torch.randn(problem.pool_size, generator=draw, dtype=torch.float64)
    largest = naive.example.abs().argsort(descending=True)
    directions = [_axis(problem.pool_size, int(largest[0])), _axis(problem.pool_size, int(largest[5])), random]
    differences = [settled_difference(oracle.phi, oracle.no_change(), along, STEP) for along in directions]
    exact = [(naive.example @ along).item() for along in directions]
    along = torch.randn(STEPS, generator=draw, dtype=torch.float64) * rates * (torch.arange(STEPS) >= start)
    by_rate = settled_difference(lambda r: oracle.phi(oracle.no_change(), r), rates, along, STEP)
    errors = [abs(by_rate / (naive.learning_rate @ along).item() - 1)]
    decays, along = oracle.decays(), 0.1 * torch.rand(STEPS, generator=draw, dtype=torch.float64)
    along = along * (torch.arange(STEPS) >= start)
    by_decay = settled_difference(lambda d: oracle.phi(oracle.no_change(), decays=d), decays, along, 10 * STEP)
    errors.append(abs(by_decay / (naive.weight_decay @ along).item() - 1))
    for c, g in naive.inputs.items():
        x, along = problem.pool[c], torch.randn(problem.pool[c].shape, generator=draw, dtype=torch.float64)
        along *= x.std()
        by_input = settled_difference(lambda x, c=c: oracle.phi(oracle.no_change(), pool={c: x}), x, along, INPUT_STEP)  # type: ignore[misc]
        errors.append(abs(by_input / (g * along).sum().item() - 1))
    return max(*errors, relative_error(*(torch.tensor(x, dtype=torch.float64) for x in (differences, exact))))


def probe_errors(problem: Problem, start: int, steps: Steps) -> tuple[float, float]:
    """Error of g_i at ``steps`` of the window to naive autograd, and to central differences for two candidates."""
    found = run(problem, Variant(binomial(start, STEPS, 7), None, True), steps)
    oracle, ids = NaiveRun(problem, start), torch.arange(problem.pool_size)
    errors, differences = [], []
    for point in found.probes:
        _, g = Probe(dataclasses.replace(problem.learner, chunk=5), point).scores(problem.pool, ids)
        join = Joining(point.step, ids, torch.zeros(len(ids), dtype=torch.float64))
        naive = oracle.gradient(join).joining
        assert naive is not None
        errors.append(relative_error(g, naive))
        differences.append(_probe_difference_error(oracle, join, g))
    return max(errors), max(differences)


def _probe_difference_error(oracle: NaiveRun, join: Joining, g: Tensor) -> float:
    pair = g.abs().argsort(descending=True)[[0, 4]]
    join = join._replace(ids=pair)

    def phi(eps: Tensor) -> Tensor:
        return oracle.phi(oracle.no_change(), join=join._replace(eps=eps))

    zero = torch.zeros(2, dtype=torch.float64)
    h = PROBE_STEP[type(oracle.problem.learner.optimizer)]
    found = [settled_difference(phi, zero, _axis(2, i), h) for i in range(2)]
    return relative_error(torch.tensor(found, dtype=torch.float64), g[pair])


def _axis(n: int, i: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)[i]


if __name__ == "__main__":
    main()
