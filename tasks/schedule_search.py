"""Learning-rate schedules of a study: projected descent from a flat one, and a grid of one-cycles beside it.

z holds the rates of all steps, or of control points between which they are linear. A metagradient step trains, takes
d target loss / d z, and moves (mgd_core.projected_descent). What is found is trained again with other seeds, since both
the descent and the choice of the grid's best have seen the target split; the test split has been seen by neither.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mgd_core.metaparameters import LearningRates, control_points
from mgd_core.optimizers import State
from mgd_core.plans import keep_all
from mgd_core.projected_descent import Descent, advance, begin
from mgd_core.replay import replay, train
from mgd_core.reverse import NonFiniteError
from mgd_core.schedules import one_cycle
from tasks.artefacts import publish_bytes, publish_json, read_json
from tasks.measures import NOT_FINITE, diverged
from tasks.progress import announce
from tasks.study_bench import StudyBench, opened_study
from tasks.study_targets import SCORES, score_of, target_of
from tasks.tables import publish

BLOCK = 10  # one-cycles of one unit
SEEDS = (101, 102, 103, 104, 105)  # of the trainings that compare
DESCENT, GRID = "descent", "grid"


def descend(directory: Path, number: int) -> Path:
    """Metagradient step ``number`` (0: the flat schedule itself); returns the path of its tensors."""
    with opened_study(directory) as bench:
        path = _step_path(bench, number)
        if not path.exists():
            kind = _kind(bench)
            if number == 0:
                z = torch.full((_points(bench),), bench.study.schedule.start, dtype=torch.float64)
                descent = begin(kind, z, *_evaluate(bench, kind, z), bench.study.schedule.step_size)
            else:
                before = _load(descend(directory, number - 1))
                descent = advance(kind, before, *_evaluate(bench, kind, before.candidate))
            announce("schedule: metagradient steps", number, bench.study.schedule.steps)
            publish_bytes(path, to_safetensors(_tensors(descent)))
        return path


def grid_units(directory: Path) -> list[int]:
    """First one-cycle of each unit of the grid."""
    with opened_study(directory) as bench:
        return list(range(0, len(one_cycles(bench)), BLOCK))


def train_grid(directory: Path, first: int) -> Path:
    """Train a block of the grid; returns the path of its record, with the target losses."""
    with opened_study(directory) as bench:
        cycles = one_cycles(bench)
        path = bench.work("schedule", f"{bench.key('grid', cycles)[:16]}-grid-{first:04d}.json")
        if not path.exists():
            losses = []
            for number in range(first, min(first + BLOCK, len(cycles))):
                losses.append(_scores(bench, rates_of(bench, cycles[number]), bench.study.learner.seed)["target_loss"])
                announce("schedule: one-cycles", number + 1, len(cycles))
            publish_json(path, {"losses": losses})
        return path


def publish_schedules(directory: Path) -> None:
    """Train the best of both with other seeds, and publish the tables `schedules` and `schedule_scores`."""
    with opened_study(directory) as bench:
        steps, cycles = bench.study.schedule.steps, one_cycles(bench)
        found = [_load(descend(directory, number)) for number in range(steps + 1)]
        blocks = [read_json(train_grid(directory, first))["losses"] for first in grid_units(directory)]
        losses = [loss for block in blocks for loss in block]
        rows = [_rows(DESCENT, i, _spread(bench, d.z), d.phi) for i, d in enumerate(found)]
        tried = {DESCENT: _spread(bench, found[-1].z)}
        if cycles:
            best = min(range(len(cycles)), key=losses.__getitem__)
            tried[GRID] = rates_of(bench, cycles[best])
            rows.append(_rows(GRID, best, tried[GRID], losses[best]))
        scores = [
            {"schedule": name, "seed": seed, "tried": steps if name == DESCENT else len(cycles), **score}
            for name, rates in tried.items()
            for seed in SEEDS
            for score in [_again(bench, name, rates, seed)]
        ]
        publish(bench.home, bench.id, "schedules", 0, pa.concat_tables([pa.Table.from_pylist(r) for r in rows]))
        publish(bench.home, bench.id, "schedule_scores", 0, pa.Table.from_pylist(scores))


def one_cycles(bench: StudyBench) -> list[tuple[float, float, float]]:
    """The grid: peak rate, share of the steps at which it is reached, last rate as a share of the peak."""
    o = bench.study.schedule
    return list(product(o.grid_peaks, o.grid_warmups, o.grid_ends))


def rates_of(bench: StudyBench, cycle: tuple[float, float, float]) -> Tensor:
    """Rates (T,) of a one-cycle."""
    peak, warmup, end = cycle
    steps = bench.study.learner.steps
    return one_cycle(steps, peak, max(1, round(warmup * steps)), end=end * peak)


def _points(bench: StudyBench) -> int:
    return bench.study.schedule.points or bench.study.learner.steps


def _kind(bench: StudyBench) -> LearningRates:
    points, steps = bench.study.schedule.points, bench.study.learner.steps
    return LearningRates() if points is None else LearningRates(control_points(steps, points), "learning_rate.points")


def _spread(bench: StudyBench, z: Tensor) -> Tensor:
    learner, _ = bench.learner()
    return _kind(bench).placed(learner, z).learning_rates


def _evaluate(bench: StudyBench, kind: LearningRates, z: Tensor) -> tuple[float, Tensor]:
    """Target loss, nats, and its metagradient by z; a training that leaves the range of numbers has no gradient."""
    learner, state = bench.learner()
    extra = () if kind.basis is None else (kind,)
    target, n = target_of(learner, bench.target), len(bench.train)
    plan = keep_all(0, learner.steps)
    try:
        found = replay(kind.placed(learner, z), state, target, plan, n, metaparameters=extra)
    except NonFiniteError:
        return NOT_FINITE, torch.zeros_like(z)
    return float(found.phi), found.sums[kind.name].double().cpu()


def _scores(bench: StudyBench, rates: Tensor, seed: int) -> dict[str, float]:
    learner, state = bench.learner(seed=seed)
    try:
        final: State = train(LearningRates().placed(learner, rates), state)[0]
    except NonFiniteError:
        return diverged(SCORES)
    return score_of(bench, learner, final.theta)


def _again(bench: StudyBench, name: str, rates: Tensor, seed: int) -> dict[str, float]:
    path = bench.work("schedule", f"{bench.key('again', rates.tolist(), seed)[:16]}-{name}-seed-{seed}.json")
    if not path.exists():
        publish_json(path, _scores(bench, rates, seed))
    found: dict[str, float] = read_json(path)
    return found


def _rows(name: str, number: int, rates: Tensor, phi: float) -> list[dict[str, Any]]:
    same = {"schedule": name, "number": number, "target_loss": phi}
    return [{**same, "step": t, "learning_rate": rate} for t, rate in enumerate(rates.tolist())]


def _step_path(bench: StudyBench, number: int) -> Path:
    o = bench.study.schedule
    key = bench.key("descent", o.points, o.start, o.step_size)
    return bench.work("schedule", f"{key[:16]}-step-{number:03d}.safetensors")


def _tensors(at: Descent) -> dict[str, Tensor]:
    numbers = torch.tensor([at.phi, at.size], dtype=torch.float64)
    return {"z": at.z.contiguous(), "g": at.g.contiguous(), "candidate": at.candidate.contiguous(), "numbers": numbers}


def _load(path: Path) -> Descent:
    found = load_file(path)
    phi, size = found["numbers"].tolist()
    return Descent(found["z"], phi, found["g"], size, found["candidate"])
