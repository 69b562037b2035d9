"""Learning-rate schedules of a study: projected descent from a flat one, and a grid of one-cycles beside it.

z holds the rates of all steps, or of control points between which they are linear. A metagradient step trains, takes
d target loss / d z, and moves (mgd_core.descent.projected_descent). What is found is trained again with other seeds,
since both the descent and the choice of the grid's best have seen the target split; the test split has been seen by
neither.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import Tensor

from mgd_core.descent.projected_descent import Descent, advance, begin
from mgd_core.engine.metaparameters import LearningRates, control_points
from mgd_core.engine.replay import replay, train
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.plans.plan import keep_all
from mgd_core.training.optimizers import State
from mgd_core.training.schedules import one_cycle
from tasks.evaluation.measures import NOT_FINITE, diverged
from tasks.files.artefacts import publish_json, read_json
from tasks.files.progress import announce
from tasks.modality.classification.modality import SCORES, ClassificationRecipe
from tasks.modality.registry import open_study
from tasks.modality.tensor_files import publish_tensors
from tasks.tables.published import publish

BLOCK = 10  # one-cycles of one unit
SEEDS = (101, 102, 103, 104, 105)  # of the trainings that compare
DESCENT, GRID = "descent", "grid"


def descend(directory: Path, number: int) -> Path:
    """Metagradient step ``number`` (0: the flat schedule itself); returns the path of its tensors."""
    with open_study(directory) as study:
        path = _step_path(study, number)
        if not path.exists():
            kind = _kind(study)
            if number == 0:
                z = torch.full((_points(study),), study.catalog.schedule.start, dtype=torch.float64)
                descent = begin(kind, z, *_evaluate(study, kind, z), study.catalog.schedule.step_size)
            else:
                before = _load(descend(directory, number - 1))
                descent = advance(kind, before, *_evaluate(study, kind, before.candidate))
            announce("schedule: metagradient steps", number, study.catalog.schedule.steps)
            publish_tensors(path, _tensors(descent))
        return path


def grid_units(directory: Path) -> list[int]:
    """First one-cycle of each unit of the grid."""
    with open_study(directory) as study:
        return list(range(0, len(one_cycles(study)), BLOCK))


def train_grid(directory: Path, first: int) -> Path:
    """Train a block of the grid; returns the path of its record, with the target losses."""
    with open_study(directory) as study:
        cycles = one_cycles(study)
        path = study.run.work("schedule", f"{study.run.key('grid', cycles)[:16]}-grid-{first:04d}.json")
        if not path.exists():
            losses = []
            for number in range(first, min(first + BLOCK, len(cycles))):
                losses.append(_scores(study, rates_of(study, cycles[number]), study.seed)["target_loss"])
                announce("schedule: one-cycles", number + 1, len(cycles))
            publish_json(path, {"losses": losses})
        return path


def publish_schedules(directory: Path) -> None:
    """Train the best of both with other seeds, and publish the tables `schedules` and `schedule_scores`."""
    with open_study(directory) as study:
        steps, cycles = study.catalog.schedule.steps, one_cycles(study)
        found = [_load(descend(directory, number)) for number in range(steps + 1)]
        blocks = [read_json(train_grid(directory, first))["losses"] for first in grid_units(directory)]
        losses = [loss for block in blocks for loss in block]
        rows = [_rows(DESCENT, i, _spread(study, d.z), d.phi) for i, d in enumerate(found)]
        tried = {DESCENT: _spread(study, found[-1].z)}
        if cycles:
            best = min(range(len(cycles)), key=losses.__getitem__)
            tried[GRID] = rates_of(study, cycles[best])
            rows.append(_rows(GRID, best, tried[GRID], losses[best]))
        scores = [
            {"schedule": name, "seed": seed, "tried": steps if name == DESCENT else len(cycles), **score}
            for name, rates in tried.items()
            for seed in SEEDS
            for score in [_again(study, name, rates, seed)]
        ]
        publish(study.run.home, study.run.id, "schedules", 0, pa.concat_tables([pa.Table.from_pylist(r) for r in rows]))
        publish(study.run.home, study.run.id, "schedule_scores", 0, pa.Table.from_pylist(scores))


def one_cycles(study: ClassificationRecipe) -> list[tuple[float, float, float]]:
    """The grid: peak rate, share of the steps at which it is reached, last rate as a share of the peak."""
    o = study.catalog.schedule
    return list(product(o.grid_peaks, o.grid_warmups, o.grid_ends))


def rates_of(study: ClassificationRecipe, cycle: tuple[float, float, float]) -> Tensor:
    """Rates (T,) of a one-cycle."""
    peak, warmup, end = cycle
    steps = study.catalog.learner.steps
    return one_cycle(steps, peak, max(1, round(warmup * steps)), end=end * peak)


def _points(study: ClassificationRecipe) -> int:
    return study.catalog.schedule.points or study.catalog.learner.steps


def _kind(study: ClassificationRecipe) -> LearningRates:
    points, steps = study.catalog.schedule.points, study.catalog.learner.steps
    return LearningRates() if points is None else LearningRates(control_points(steps, points), "learning_rate.points")


def _spread(study: ClassificationRecipe, z: Tensor) -> Tensor:
    learner, _ = study.learner()
    return _kind(study).placed(learner, z).learning_rates


def _evaluate(study: ClassificationRecipe, kind: LearningRates, z: Tensor) -> tuple[float, Tensor]:
    """Target loss, nats, and its metagradient by z; a training that leaves the range of numbers has no gradient."""
    learner, state = study.learner()
    extra = () if kind.basis is None else (kind,)
    target, n = study.task(learner, study.target).target, len(study.train)
    plan = keep_all(0, learner.steps)
    try:
        found = replay(kind.placed(learner, z), state, target, plan, n, metaparameters=extra)
    except NonFiniteError:
        return NOT_FINITE, torch.zeros_like(z)
    return float(found.phi), found.sums[kind.name].double().cpu()


def _scores(study: ClassificationRecipe, rates: Tensor, seed: int) -> dict[str, float]:
    learner, state = study.learner(seed=seed)
    try:
        final: State = train(LearningRates().placed(learner, rates), state)[0]
    except NonFiniteError:
        return diverged(SCORES)
    return study.scores(learner, final.theta)


def _again(study: ClassificationRecipe, name: str, rates: Tensor, seed: int) -> dict[str, float]:
    path = study.run.work("schedule", f"{study.run.key('again', rates.tolist(), seed)[:16]}-{name}-seed-{seed}.json")
    if not path.exists():
        publish_json(path, _scores(study, rates, seed))
    found: dict[str, float] = read_json(path)
    return found


def _rows(name: str, number: int, rates: Tensor, phi: float) -> list[dict[str, Any]]:
    same = {"schedule": name, "number": number, "target_loss": phi}
    return [{**same, "step": t, "learning_rate": rate} for t, rate in enumerate(rates.tolist())]


def _step_path(study: ClassificationRecipe, number: int) -> Path:
    o = study.catalog.schedule
    key = study.run.key("descent", o.points, o.start, o.step_size)
    return study.run.work("schedule", f"{key[:16]}-step-{number:03d}.safetensors")


def _tensors(at: Descent) -> dict[str, Tensor]:
    numbers = torch.tensor([at.phi, at.size], dtype=torch.float64)
    return {"z": at.z.contiguous(), "g": at.g.contiguous(), "candidate": at.candidate.contiguous(), "numbers": numbers}


def _load(path: Path) -> Descent:
    found = load_file(path)
    phi, size = found["numbers"].tolist()
    return Descent(found["z"], phi, found["g"], size, found["candidate"])
