"""What each task wants of every sample: g of a round's probed samples, task by task or group by group.

One more training on a round's counts, and one reverse sweep with a cotangent for each of Q tasks (or groups): their
shares of phi, whose metagradients add up to the round's. It changes no round: which is told, `targets.per_task` says,
and a run that is done can be asked again. Tasks that follow from others (the same set twice) are not swept, as a sweep
is linear in its cotangents. Cost: the training; (6 Q + 2) / 8 reverse sweeps, where arithmetic is the cost: each
cotangent needs two products forward and four backward of its own; and Q times a round's probes. Memory: Q adjoints.
"""

from __future__ import annotations

import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import safe_open

from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import Metagradient, ProbePoint
from mgd_core.models.multitask import MultiTask, independent
from tasks.catalog.base import BaseCatalog
from tasks.curation.counts_digest import counts_digest
from tasks.curation.multitask.units import in_units, units_of
from tasks.curation.rounds import (
    STATES,
    Unit,
    counts_of,
    learner_of,
    masked,
    probe_steps_of,
    replayed,
    seed_of,
    traversed,
)
from tasks.files.artefacts import digest, is_done, publish_json, read_json, unit_name
from tasks.modality.recipe import Ids, PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.modality.tensor_files import publish_tensors
from tasks.pool.columns import columns_of
from tasks.runs.run import Run
from tasks.tables.streams import publishing_rows
from tasks.tables.uids import uid_array

STRETCH = 1 << 16
"""Samples that are held while the table is published."""


def told_rounds(catalog: BaseCatalog, chosen: int) -> list[int]:
    """Rounds of which g is to be told by task, once a round is chosen."""
    targets, rounds = catalog.targets, catalog.descent.rounds
    if not targets.many or not rounds or targets.per_task == "none":
        return []
    return sorted({chosen, *(range(rounds) if targets.per_task == "every" else ())})


def cost_of(cotangents: int) -> float:
    """A reverse sweep with so many cotangents, in sweeps with one, where arithmetic is the cost."""
    return (6 * cotangents + 2) / 8


def sweep_tasks(directory: Path, round: int, replicate: int = 0) -> Path:
    """Train on a round's counts and traverse the window in reverse for each task; returns the path of the record."""
    with open_recipe(directory) as recipe:
        counts = counts_of(recipe, round)
        record = swept(recipe.run, round, replicate)
        key = recipe.run.key("by task", round, counts_digest(counts), _asked(recipe), replicate)
        if not is_done(record, key):
            began = time.monotonic()
            learner, _ = recipe.learner(counts, seed_of(recipe, replicate), round)
            task = recipe.lowered(learner, round)
            assert isinstance(task, MultiTask)
            groups = list(recipe.catalog.targets.told_by.values())

            def shares(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                own = in_units(task, units_of(recipe, replayed(recipe.run, 0), learner, theta))
                assert isinstance(own, MultiTask)
                return own.targets(theta, groups)

            def target(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                phi, gradients = shares(theta)
                chosen = independent(gradients)[0] or [0]
                return phi[chosen], gradients[chosen]

            name = f"round {round}, by task{f', replicate {replicate}' if replicate else ''}"
            unit = Unit(key, record.with_name(STATES), name)
            result, batches, _ = traversed(recipe, counts, round, replicate, target, unit)
            chosen, coefficients = independent(shares(result.final.theta)[1])
            coefficients = coefficients if chosen else coefficients.new_zeros(len(groups), 1)
            publish_tensors(record.with_suffix(".safetensors"), _tensors(result, coefficients, batches))
            publish_json(record, {"key": key, "swept": len(chosen), "seconds": time.monotonic() - began})
        shutil.rmtree(record.with_name(STATES), ignore_errors=True)
        return record


def probe_tasks(directory: Path, round: int, shard: str) -> Path:
    """g of the round's masked samples of a shard (n, Q)."""
    with open_recipe(directory) as recipe:
        record = recipe.run.work(f"round-{round:03d}", "by-task", f"probe-{unit_name(shard)}.json")
        sweeps = digest([read_json(one)["key"] for one in _sweeps(recipe, round)])
        key = recipe.run.key("probe by task", sweeps, shard)
        if not is_done(record, key):
            ids = masked(recipe, round, shard)
            g = _probe(recipe, round, ids, sweeps)
            publish_tensors(record.with_suffix(".safetensors"), {"g": g, "ids": torch.from_numpy(ids)})
            publish_json(record, {"key": key})
        return record


def publish_tasks(directory: Path, round: int, probes: list[Path]) -> None:
    """Publish `task_metagradients` of a round: of every probed sample a row a task."""
    with open_recipe(directory) as recipe:
        names = list(recipe.catalog.targets.told_by)
        ids, g = _found(recipe, round, probes)
        with publishing_rows(recipe.run.home, recipe.run.id, "task_metagradients", round) as table:
            for at in range(0, max(len(ids), 1), STRETCH):
                part, values = ids[at : at + STRETCH], g[at : at + STRETCH]
                uids = uid_array(recipe.uids[np.repeat(part, len(names))])
                tasks = pa.array(names * len(part), pa.string())
                table.add(pa.table({"uid": uids, "task": tasks, "g": values.reshape(-1)}))


def swept(run: Run, round: int, replicate: int = 0) -> Path:
    """The record of a round's sweep by task."""
    inside = [f"replicate-{replicate}"] if replicate else []
    return run.work(f"round-{round:03d}", "by-task", *inside, "swept.json")


def _asked(recipe: PoolRecipe) -> list[Any]:
    return [[name, list(tasks)] for name, tasks in recipe.catalog.targets.told_by.items()]


def _sweeps(recipe: PoolRecipe, round: int) -> list[Path]:
    return [swept(recipe.run, round, one) for one in range(recipe.catalog.descent.trainings_of(round))]


def _tensors(
    result: Metagradient, coefficients: torch.Tensor, batches: dict[int, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """As a round's, of all tasks: what was swept times the coefficients by which the others follow from it."""
    tensors = {"example": coefficients.to(result.example) @ result.example, "visits": result.visits}
    for point in result.probes:
        gamma = coefficients.to(point.gamma) @ point.gamma
        tensors |= {f"theta.{point.step}": point.theta, f"gamma.{point.step}": gamma}
    return tensors | {f"batch.{step}": ids for step, ids in batches.items()}


def _probe(recipe: PoolRecipe, round: int, ids: Ids, key: str) -> torch.Tensor:
    """(n, Q): the mean over replicates of the sum over probe steps."""
    tasks = len(recipe.catalog.targets.told_by)
    found = torch.zeros(len(ids), tasks, dtype=torch.float64)
    for q, probe in _probes(recipe.run.directory, round, key, recipe.catalog.runtime.device):
        at = 0
        for batch in recipe.candidates(ids, round, probe.point.step):
            g = probe.scores(batch.rows, batch.ids)[1].double().cpu().view(-1, recipe.views).mean(1)
            found[at : at + len(g), q] += g
            at += len(g)
    return found / recipe.catalog.descent.trainings_of(round)


@lru_cache(maxsize=1)
def _probes(directory: Path, round: int, key: str, device: str) -> list[tuple[int, Probe]]:
    """A probe for each task, step and replicate, by the task's number, which all shards share; ``key``: the sweeps'."""
    with open_recipe(directory) as recipe:
        probes: list[tuple[int, Probe]] = []
        for replicate, record in enumerate(_sweeps(recipe, round)):
            with safe_open(record.with_suffix(".safetensors"), "pt", device=device) as file:
                learner = learner_of(recipe, round, replicate, file)
                for step in probe_steps_of(recipe.catalog.descent):
                    theta, gammas = file.get_tensor(f"theta.{step}"), file.get_tensor(f"gamma.{step}")
                    reference = learner.batches(step)
                    probes += [(q, Probe(learner, ProbePoint(step, theta, g), reference)) for q, g in enumerate(gammas)]
        return probes


def _found(recipe: PoolRecipe, round: int, probes: list[Path]) -> tuple[Ids, npt.NDArray[np.float64]]:
    """Positions of the probed samples, ascending, and their g (n, Q)."""
    if recipe.catalog.descent.surrogate == "path":
        examples, visits = [], np.zeros(len(recipe), np.int64)
        for record in _sweeps(recipe, round):
            with safe_open(record.with_suffix(".safetensors"), "np") as file:
                examples.append(file.get_tensor("example").astype(np.float64))
                visits += file.get_tensor("visits")
        ids = np.flatnonzero(visits)
        return ids, np.mean(examples, 0).T[ids]
    parts = []
    for record in probes:
        with safe_open(record.with_suffix(".safetensors"), "np") as file:
            parts.append((file.get_tensor("ids"), file.get_tensor("g")))
    assert len(parts) == len(columns_of(recipe.pool).names), "a shard was not probed"
    ids, g = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(ids)
    return ids[order], g[order]
