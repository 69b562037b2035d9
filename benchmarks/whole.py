"""What does a whole metagradient cost, in trainings?

`python -m benchmarks.whole` replays trainings of the demo's CLIP (catalogs/models/fashion.json, float32, batches of
256, its target: zero-shot classification of 1,000 pictures) and gives CPU seconds in units of the same training:

* `trainings_all_states`: every state kept, the demo's 64 steps. Bar: 4.0 (1 for the training and 8 / 3 for its matrix
  products reversed: 3.7, and the target);
* `trainings_32_slots`: 32 states kept of 1,000 steps, and `predicted_32_slots` = 1 + extra / T + reverse / step, with
  the plan's advances beyond one training. Bar: within 5 % of each other.

The machine may be shared and its speed changes within minutes, so the training step is timed during the replay: after
every few of its units a plain training step and a reverse step are run beside it, timed, and taken off its time. One
thread, CPU seconds; wall-clock ratios are printed too. `--quick` has batches of 32, 24 steps and 100.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, dataclass, replace
from statistics import mean

# See benchmarks.reverse_step.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks import reverse_step
from benchmarks._envelope import emit
from benchmarks.reverse_step import BATCHES, VOCABULARY
from mgd_core.engine.replay import replay, train
from mgd_core.engine.reverse import reverse_step as reverse
from mgd_core.models.clip import ClipObjective
from mgd_core.models.zeroshot import ZeroShotTask
from mgd_core.plans.plan import Plan, binomial, keep_all
from mgd_core.training.determinism import deterministic
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import State
from mgd_core.training.schedules import warmup_cosine

SLOTS = 32
CLASSES, TEMPLATES = 10, 2
BAR, TOLERANCE = 4.0, 0.05


@dataclass(frozen=True)
class Size:
    """Rows of a batch, pictures of the target, steps of both trainings, and units between two timings."""

    batch: int
    pictures: int
    short: int
    long: int
    every: int


FULL = Size(batch=256, pictures=1000, short=64, long=1000, every=12)
QUICK = Size(batch=32, pictures=64, short=24, long=100, every=6)


@dataclass(frozen=True)
class Cost:
    """A replay's seconds, and the mean seconds of the training and reverse steps timed beside it: (CPU, wall)."""

    plan: str
    steps: int
    advances: int
    total: tuple[float, float]
    step: tuple[float, float]
    reverse: tuple[float, float]

    def trainings(self, clock: int = 0) -> float:
        """Trainings that the replay cost, by the CPU's clock (0) or the wall's (1)."""
        return self.total[clock] / (self.steps * self.step[clock])

    @property
    def ratio(self) -> float:
        """Training steps that a reverse step costs."""
        return self.reverse[0] / self.step[0]

    @property
    def predicted(self) -> float:
        """1 + extra / T + reverse ratio; of the T steps of a training the last one is the plan's turn."""
        return 1 + (self.advances - (self.steps - 1)) / self.steps + self.ratio


def main() -> None:
    """Print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller batches and shorter trainings")
    size = QUICK if parser.parse_args().quick else FULL
    with deterministic(1):
        all_states = measure(size, keep_all(0, size.short))
        slots = measure(size, binomial(0, size.long, SLOTS))
        print("plan        slots  steps  advances  step, ms  reverse, ms  ratio  trainings  predicted  by wall clock")
        for cost, kept in ((all_states, size.short), (slots, SLOTS)):
            print(
                f"{cost.plan:<12}{kept:>5}{cost.steps:>7}{cost.advances:>10}{1e3 * cost.step[0]:>10.1f}"
                f"{1e3 * cost.reverse[0]:>13.1f}{cost.ratio:>7.2f}{cost.trainings():>11.2f}{cost.predicted:>11.2f}"
                f"{cost.trainings(1):>15.2f}"
            )
        figures = {
            "trainings_all_states": all_states.trainings(),
            "trainings_32_slots": slots.trainings(),
            "predicted_32_slots": slots.predicted,
            "difference_32_slots": slots.trainings() / slots.predicted - 1,
            "bar_all_states": BAR,
            "bar_difference": TOLERANCE,
            "size": asdict(size),
            "rows": [asdict(all_states), asdict(slots)],
        }
        emit("whole", figures)


def measure(size: Size, plan: Plan) -> Cost:
    """A replay by ``plan``, with steps timed beside it."""
    learner, initial, target = problem(size, plan.stop)
    for _ in range(2):  # warm-up
        target.target(initial.theta)
        beside = _Beside(learner, initial, size.every)
        beside.sample()
    beside.reset()
    began = _now()
    found = replay(learner, initial, target.target, plan, len(learner.batches(0).ids), on=beside)
    total = _less(_less(_now(), began), beside.spent)
    return Cost(plan.name, plan.steps, found.advances, total, _mean(beside.steps), _mean(beside.reverses))


class _Beside:
    """Called after each unit of a replay; times a training step and a reverse step after every few."""

    def __init__(self, learner: Learner, initial: State, every: int) -> None:
        self.learner, self.every = learner, every
        self.states = [initial]
        for t in range(2):
            self.states.append(learner.step(self.states[-1], t)[0])
        draw = torch.Generator().manual_seed(3)
        tensors = [1e-3 * torch.randn(len(x), generator=draw) for x in initial.tensors]
        self.adjoint = State(tensors[0], tuple(tensors[1:]))
        self.reset()

    def reset(self) -> None:
        """Forget what was timed."""
        self.units, self.spent = 0, (0.0, 0.0)
        self.steps: list[tuple[float, float]] = []
        self.reverses: list[tuple[float, float]] = []

    def __call__(self, what: str, t: int) -> None:
        self.units += 1
        if self.units % self.every == 0:
            began = _now()
            self.sample()
            spent = _less(_now(), began)
            self.spent = self.spent[0] + spent[0], self.spent[1] + spent[1]

    def sample(self) -> None:
        """One training step and one reverse step."""
        _, before, after = self.states
        began = _now()
        train(self.learner, before, 1, 2)
        between = _now()
        reverse(self.learner, before, after, self.adjoint, 1, self.learner.batches(1))
        self.steps.append(_less(between, began))
        self.reverses.append(_less(_now(), between))


def problem(size: Size, steps: int) -> tuple[Learner, State, ZeroShotTask]:
    """The demo's model and schedule on random pictures and tokens, and a target of ten classes in two templates."""
    learner, initial = reverse_step.build("fashion")
    whole = [learner.batches(i) for i in range(BATCHES)]
    batches = [
        Batch(tuple(x[: size.batch] for x in b.rows), b.ids[: size.batch], b.weights[: size.batch]) for b in whole
    ]
    rates = warmup_cosine(steps, 1e-3, warmup=min(10, steps))
    learner = replace(learner, learning_rates=rates, batches=lambda t: batches[t % BATCHES])
    draw = torch.Generator().manual_seed(5)
    side, length = whole[0].rows[0].shape[-1], whole[0].rows[1].shape[-1]
    images = torch.randint(256, (size.pictures, 3, side, side), generator=draw, dtype=torch.uint8)
    tokens = torch.randint(1, VOCABULARY["fashion"] - 1, (CLASSES, TEMPLATES, length), generator=draw)
    tokens[..., -1] = VOCABULARY["fashion"] - 1  # open_clip reads the text at its largest token, the end of text
    labels = torch.randint(CLASSES, (size.pictures,), generator=draw)
    assert isinstance(learner.objective, ClipObjective)
    return learner, initial, ZeroShotTask(learner.objective, learner.layout, images, labels, tokens)


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _less(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] - b[0], a[1] - b[1]


def _mean(times: list[tuple[float, float]]) -> tuple[float, float]:
    return mean(cpu for cpu, _ in times), mean(wall for _, wall in times)


if __name__ == "__main__":
    main()
