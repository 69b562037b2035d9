"""What does it cost to score candidates, in passes of training over as many?

`python -m benchmarks.probe` scores batches of 256 candidates at a probe step (mgd_core.engine.probe: one forward-mode
pass, 3 matrix products where forward and backward of a training step have 3 too), on the demo's CLIP and on emoji's
(catalogs/models), and trains on the same batches; both sides in turn within one run, one thread, CPU seconds, medians.
A pool of 10,000 is scored with one reference batch, whose own encoding is counted in:

    passes = (10,000 / 256 batches scored + one reference encoded) / (10,000 / 256 gradients computed)

The second line of a model has both sides encode 64 rows at a time. There a gradient encodes every row twice, a probe
once. `passes` is the largest of the four. Bar: 1.15.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median

# See benchmarks.reverse_step.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks._envelope import emit
from benchmarks.reverse_step import BATCH, BATCHES, CHUNK, VOCABULARY, build
from mgd_core.autodiff.derivatives import value_and_gradient
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import ProbePoint
from mgd_core.training.determinism import deterministic
from mgd_core.training.learner import Learner

POOL = 10_000  # candidates, as the demo has
BAR = 1.15
WARM_UP, REPEATS, QUICK_REPEATS = 1, 25, 5


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds of a batch: median over the repeats."""

    model: str
    chunk: int
    gradient: float
    scores: float
    reference: float

    @property
    def passes(self) -> float:
        """Training passes over the pool that scoring it costs."""
        batches = POOL / BATCH
        return (batches * self.scores + self.reference) / (batches * self.gradient)


def main() -> None:
    """Print a table and the number of passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REPEATS} repeats instead of {REPEATS}")
    repeats = QUICK_REPEATS if parser.parse_args().quick else REPEATS
    with deterministic(1):
        costs = [cost for name in VOCABULARY for cost in measure(name, repeats)]
        print(f"CPU milliseconds per {BATCH} rows   gradient   scores   reference once   passes over {POOL:,}")
        for c in costs:
            times = f"{c.gradient:>19.1f}{c.scores:>9.1f}{c.reference:>17.1f}"
            print(f"{c.model:<10}{c.chunk:>5} at once{times}{c.passes:>9.3f}")
        figures = {"passes": max(c.passes for c in costs), "bar": BAR, "pool": POOL, "repeats": repeats}
        emit("probe", figures | {"rows": [asdict(c) | {"passes": c.passes} for c in costs]})


def measure(name: str, repeats: int) -> list[Cost]:
    """A model with the whole batch at once and in chunks."""
    learner, state = build(name)
    state, _ = learner.step(state, 0)
    draw = torch.Generator().manual_seed(1)
    point = ProbePoint(0, state.theta, torch.randn(len(state.theta), generator=draw))
    learners = [learner, replace(learner, chunk=CHUNK)]
    probes = [Probe(each, point) for each in learners]
    seconds: list[list[float]] = [[] for _ in range(3 * len(learners))]
    for i in range(WARM_UP + repeats):
        calls = [call for each, probe in zip(learners, probes, strict=True) for call in _calls(each, probe, point, i)]
        for own, call in zip(seconds, calls, strict=True):
            own.append(_cpu_seconds(call))
    medians = [1e3 * median(own[WARM_UP:]) for own in seconds]
    return [Cost(name, each.chunk or BATCH, *medians[3 * i : 3 * i + 3]) for i, each in enumerate(learners)]


def _calls(learner: Learner, probe: Probe, point: ProbePoint, i: int) -> list[Callable[[], object]]:
    batch = learner.batches(1 + i % (BATCHES - 1))
    rows, weights, chunk = batch.rows, batch.weights, learner.chunk
    return [
        lambda: value_and_gradient(learner.objective, learner.layout, point.theta, rows, weights, chunk),
        lambda: probe.scores(rows, batch.ids + BATCH),
        lambda: Probe(learner, point),
    ]


def _cpu_seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
