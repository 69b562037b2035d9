"""One round of metagradient descent: train and replay, probe shard by shard, step the counts, publish.

Each function is one unit of work: it is found done by its record, whose key is the digest of its inputs, and does
nothing then. What a round is a function of: the run's catalog and pool, and the counts it trains on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import safe_open

from mgd_core.descent.steps import mask
from mgd_core.engine.journal import Interval, durable
from mgd_core.engine.over_ranks import Target, whole_state
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import Metagradient, ProbePoint, replay, train
from mgd_core.plans.actions import Tier
from mgd_core.ranks.ranks import ALONE, Ranks
from mgd_core.training.learner import Learner
from mgd_core.training.streams import REPLICATES
from tasks.catalog.recipe_options import DescentOptions
from tasks.curation.checkpoint_plan import plan_of
from tasks.curation.count_updates import publish_counts, publish_update
from tasks.curation.counts_digest import counts_digest
from tasks.curation.multitask.units import lowered, scores, units_of
from tasks.curation.starting_counts import starting_counts
from tasks.curation.trained import published_counts
from tasks.files.artefacts import digest, is_done, publish_json, read_json, unit_name
from tasks.files.progress import announcing
from tasks.modality.recipe import Counts, Ids, PoolRecipe, Score, Scores
from tasks.modality.registry import open_recipe
from tasks.modality.tensor_files import publish_tensors
from tasks.pool.columns import columns_of
from tasks.ranks.group import run_on_ranks
from tasks.runs.run import Run
from tasks.scoring.fitting import fit
from tasks.scoring.groups import group_codes
from tasks.scoring.known import known_of
from tasks.tables.published import publish
from tasks.tables.streams import publishing_rows
from tasks.tables.uids import uid_array

Batches = dict[int, torch.Tensor]
"""Positions of the batch of a step."""
LAST_LOSSES = 10  # training losses averaged for the rounds table
STATES = "states"  # directory of a round's training states, until the round is done


def first_counts(recipe: PoolRecipe) -> None:
    """Publish round 0's counts."""
    publish_counts(recipe.run.directory, 0, [recipe.uids], starting_counts(recipe))


def counts_of(recipe: PoolRecipe, round: int) -> Counts:
    """Counts (n,) of a round, in uid order."""
    counts = published_counts(recipe.run, round)
    assert len(counts) == len(recipe), "the counts table and the pool disagree about their samples"
    return counts


def train_round(
    directory: Path, round: int, differentiate: bool, replicate: int = 0, devices: Sequence[str] = ()
) -> Path:
    """Train on the round's counts, evaluate, and, if ``differentiate``, traverse the window in reverse; ``replicate``:
    number of the training among those of the round; ``devices``: one for each rank, where the catalog asks for several.

    Writes ``replayed.safetensors`` (final parameters, probe points, path gradients) and then the record, whose path is
    returned. Until then its states lie beside it, in ``states``, from which a killed round goes on.
    """
    arguments = directory, round, differentiate, replicate
    if len(devices) < 2:
        return train_rank(*arguments)
    with open_recipe(directory) as recipe:
        record, key, _ = _record_of(recipe, *arguments[1:])
    if not is_done(record, key):
        run_on_ranks(f"{__name__}:{train_rank.__name__}", arguments, devices)
    shutil.rmtree(record.with_name(STATES), ignore_errors=True)
    return record


def train_rank(directory: Path, round: int, differentiate: bool, replicate: int = 0, *, ranks: Ranks = ALONE) -> Path:
    """:func:`train_round` by this process, with others of its ``ranks``, of which the first publishes."""
    with open_recipe(directory) as recipe:
        recipe = replace(recipe, ranks=ranks)
        record, key, counts = _record_of(recipe, round, differentiate, replicate)
        if ranks.told(not is_done(record, key)):
            began = time.monotonic()
            result, batches, train_seconds = _replay(recipe, counts, round, differentiate, key, replicate)
            if ranks.first:
                publish_tensors(record.with_suffix(".safetensors"), _tensors(result, batches))
                seconds = {"train": train_seconds, "reverse": time.monotonic() - began - train_seconds}
                told = _told(replace(recipe, ranks=ALONE), result, counts, round, replicate)
                publish_json(record, {"key": key, **told, "seconds": seconds})
        ranks.anywhere(True)  # nobody writes there any more
        if ranks.first:
            shutil.rmtree(record.with_name(STATES), ignore_errors=True)
        return record


def _record_of(recipe: PoolRecipe, round: int, differentiate: bool, replicate: int) -> tuple[Path, str, Counts]:
    """Where the record of a training lies, its key, and the counts that are trained on."""
    counts, run = counts_of(recipe, round), recipe.run
    key = run.key("round", round, differentiate, counts_digest(counts), *([replicate] if replicate else []))
    return replayed(run, round, replicate), key, counts


def probe_shard(directory: Path, round: int, shard: str) -> Path:
    """Metagradients of the round's masked samples that lie in ``shard``, a column for each probe step of each
    replicate."""
    with open_recipe(directory) as recipe:
        record = recipe.run.work(f"round-{round:03d}", f"probe-{unit_name(shard)}.json")
        keys = [read_json(one)["key"] for one in _replicates(recipe, round)]
        replay_key = keys[0] if len(keys) == 1 else digest(keys)
        key = recipe.run.key("probe", replay_key, shard)
        if not is_done(record, key):
            began = time.monotonic()
            ids = masked(recipe, round, shard)
            g = _probe(recipe, round, ids, replay_key)
            publish_tensors(record.with_suffix(".safetensors"), {"g": g, "ids": torch.from_numpy(ids)})
            publish_json(record, {"key": key, "seconds": {"probe": time.monotonic() - began}})
        return record


def finish_round(directory: Path, round: int, probes: list[Path]) -> None:
    """Publish the round's metagradients and row, step the counts and publish the next round's."""
    with open_recipe(directory) as recipe:
        home, run = recipe.run.home, recipe.run.id
        record = read_json(replayed(recipe.run, round))
        figures, seconds = record["figures"], dict(record["seconds"])
        for more in _replicates(recipe, round)[1:] if figures["reverse_steps"] else ():
            seconds = {phase: value + read_json(more)["seconds"][phase] for phase, value in seconds.items()}
        for probe in probes:
            seconds["probe"] = seconds.get("probe", 0.0) + read_json(probe)["seconds"]["probe"]
        update = None
        if figures["reverse_steps"]:
            columns = _metagradient(recipe, round, probes)
            with publishing_rows(home, run, "metagradients", round) as table:
                table.add(pa.table({"uid": uid_array(recipe.uids), **columns}))
            descent = recipe.catalog.descent
            of_round_0 = partial(parameters_of, recipe, 0)
            groups = [group_codes(recipe, one, of_round_0) for one in descent.groups]
            learn = partial(_expected, recipe) if descent.learned else None
            alike = group_codes(recipe, descent.diverse_by, of_round_0) if descent.diversity else None
            update = publish_update(recipe.run.directory, round, descent, groups, learn, alike)
            figures["probed"] = int(columns["probed"].sum())
        figures |= {"raised": update.raised if update else 0, "lowered": update.lowered if update else 0}
        after = round - recipe.catalog.descent.rounds - 1
        figures["blend"] = recipe.catalog.descent.blends[after] if after >= 0 else None
        figures |= {"target_n": recipe.target_sizes().target, "heldout_n": recipe.target_sizes().heldout}
        publish(home, run, "rounds", round, pa.Table.from_pylist([figures]))
        if record.get("tasks"):
            publish(home, run, "task_scores", round, pa.Table.from_pylist(record["tasks"]))
        rows = [{"phase": phase, "seconds": value} for phase, value in seconds.items()]
        publish(home, run, "timings", round, pa.Table.from_pylist(rows))


def look_at_pool(directory: Path) -> None:
    """Show the pool to the model that round 0 trained, for a learned step; found done by what is kept of it."""
    with open_recipe(directory) as recipe:
        known_of(recipe)


def replayed(run: Run, round: int, replicate: int = 0) -> Path:
    """The record of a round's training."""
    inside = [f"replicate-{replicate}"] if replicate else []
    return run.work(f"round-{round:03d}", *inside, "replayed.json")


def shard_names(directory: Path) -> list[str]:
    """The pool's shards, in order."""
    names = columns_of(Run.load(directory).pool).names
    records = {unit_name(name) for name in names}
    assert len(records) == len(names), "two shards would share a record"
    return names


def probe_steps_of(options: DescentOptions) -> tuple[int, ...]:
    """Steps at which candidates enter; none for the path surrogate."""
    if options.surrogate == "path":
        return ()
    return tuple(sorted(set(options.probe_steps))) or (options.window_start,)


def load_parameters(record: Path) -> torch.Tensor:
    """Final parameters (P,) of a trained round."""
    with safe_open(record.with_suffix(".safetensors"), "pt") as file:
        return file.get_tensor("theta")


def parameters_of(recipe: PoolRecipe, round: int) -> torch.Tensor:
    """What a round ended with (P,), on the catalog's device."""
    return load_parameters(replayed(recipe.run, round)).to(recipe.catalog.runtime.device)


def _expected(recipe: PoolRecipe, g: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]) -> Scores:
    """What a model fitted to other samples expects of each one's g (n,)."""
    return fit(known_of(recipe), recipe.uids, g, weight).expected


def _replicates(recipe: PoolRecipe, round: int) -> list[Path]:
    """Records of all trainings of a round that differentiates."""
    return [replayed(recipe.run, round, one) for one in range(recipe.catalog.descent.replicates)]


def seed_of(recipe: PoolRecipe, replicate: int) -> int:
    """Of a replicate's training."""
    seed: int = recipe.catalog.descent.seed + replicate * REPLICATES
    return seed


def _replay(
    recipe: PoolRecipe, counts: Counts, round: int, differentiate: bool, key: str, replicate: int
) -> tuple[Metagradient, Batches, float]:
    """Train and, if asked, differentiate; returns the result, the batches at its probe steps, and the seconds until the
    reverse sweep began."""
    learner, _ = recipe.learner(counts, seed_of(recipe, replicate), round)
    target = lowered(recipe, learner, round, _first(recipe, round, replicate))
    name = f"round {round}{f', replicate {replicate}' if replicate else ''}"
    states = replayed(recipe.run, round, replicate).with_name(STATES)
    return traversed(recipe, counts, round, replicate, target, Unit(key, states, name), differentiate)


class Unit(NamedTuple):
    """A traversal as work that can be cut off: its key, the directory of its states, and what whoever watches is
    told."""

    key: str
    states: Path
    name: str


def traversed(
    recipe: PoolRecipe,
    counts: Counts,
    round: int,
    replicate: int,
    target: Target,
    unit: Unit,
    differentiate: bool = True,
) -> tuple[Metagradient, Batches, float]:
    """A round's training, and its window in reverse towards ``target``; as `_replay`."""
    catalog = recipe.catalog
    learner, state = recipe.learner(counts, seed_of(recipe, replicate), round)
    ranks = recipe.ranks
    steps, plan = learner.steps, plan_of(recipe)
    began = time.monotonic()
    turned = [began]
    told = announcing(f"{unit.name}: train", steps, f"{unit.name}: reverse", plan.steps)

    def on(what: str, t: int) -> None:
        if what == "reverse" and t + 1 >= steps:
            turned[0] = time.monotonic()
        told(what, t)

    owner = digest([unit.key, recipe.run.record["environment"], recipe.run.record["versions"]])
    interval = Interval(catalog.descent.checkpoint_steps, catalog.descent.checkpoint_seconds)
    with durable(unit.states, owner, interval, ranks) as (store, journal):
        if not differentiate:
            final, losses = train(learner, state, on=on, journal=journal)
            final = whole_state(learner, final)
            phi = target(final.theta)[0] if ranks.first else final.theta.new_zeros(())  # the first publishes
            nothing = final.theta.new_zeros(0)
            sums = {"example": nothing, "learning_rate": nothing}
            result = Metagradient(phi, final, sums, nothing.long(), losses)
            return result, {}, time.monotonic() - began
        points, n = probe_steps_of(catalog.descent), len(recipe)
        result = replay(learner, state, target, plan, n, points, on=on, store=store, journal=journal)
        batches = {p.step: torch.cat(ranks.each(learner.batches(p.step).ids.cpu())) for p in result.probes}
        return result, batches, turned[0] - began


def _first(recipe: PoolRecipe, round: int, replicate: int) -> Path | None:
    """The record of round 0; None for the training that writes it."""
    return replayed(recipe.run, 0) if round or replicate else None


def _told(recipe: PoolRecipe, result: Metagradient, counts: Counts, round: int, replicate: int) -> dict[str, Any]:
    """What a training's record says: its row of the rounds, and of many tasks their scores and units."""
    learner, _ = recipe.learner(counts, seed_of(recipe, replicate), round)
    units = units_of(recipe, _first(recipe, round, replicate), learner, result.final.theta)
    found = scores(recipe, learner, result.final.theta, units)
    figures = _figures(recipe, result, counts, found["target"], found["heldout"])
    return {"figures": figures} | ({"units": units, "tasks": found["tasks"]} if found["tasks"] else {})


def _figures(recipe: PoolRecipe, result: Metagradient, counts: Counts, target: Score, heldout: Score) -> dict[str, Any]:
    # As planned, which a traversal asserts: one that was cut off and went on did more, and must give the same table.
    plan = plan_of(recipe) if result.reverse_steps else None
    in_memory = sum(n for tier, n in plan.peak_states.items() if tier is not Tier.DISK) if plan else 0
    return {
        "target_loss": target.loss,
        "target_accuracy": target.accuracy,
        "heldout_loss": heldout.loss,
        "heldout_accuracy": heldout.accuracy,
        "temperature": target.scale,
        "train_loss": float(np.mean(result.train_losses[-LAST_LOSSES:])),
        "advances": plan.advances if plan else 0,
        "reverse_steps": result.reverse_steps,
        "peak_states": in_memory,
        "peak_bytes": in_memory * result.final.nbytes,
        "distinct_samples": int((counts > 0).sum()),
        "total": int(counts.sum()),
        "probed": 0,
    }


def _tensors(result: Metagradient, batches: Batches) -> dict[str, torch.Tensor]:
    tensors = {"theta": result.final.theta, "example": result.example, "visits": result.visits}
    for point in result.probes:
        tensors |= {f"theta.{point.step}": point.theta, f"gamma.{point.step}": point.gamma}
    return tensors | {f"batch.{step}": ids for step, ids in batches.items()}


def masked(recipe: PoolRecipe, round: int, shard: str) -> Ids:
    """The samples of a shard that this round scores and moves, ascending."""
    columns, options = columns_of(recipe.pool), recipe.catalog.descent
    ids = columns.of_shard(shard)
    return ids[mask(columns.uids[ids], options.seed, round, options.p)]


def _probe(recipe: PoolRecipe, round: int, ids: Ids, key: str) -> torch.Tensor:
    """g of samples ``ids``, (n, replicates x probe steps)."""
    columns = []
    for probe in _probes(recipe.run.directory, round, key, recipe.catalog.runtime.device):
        parts = [torch.zeros(0, dtype=torch.float64)]
        for batch in recipe.candidates(ids, round, probe.point.step):
            g = probe.scores(batch.rows, batch.ids)[1].double().cpu()
            parts.append(g if recipe.views == 1 else g.view(-1, recipe.views).mean(1))
        columns.append(torch.cat(parts))
    return torch.stack(columns, dim=1)


@lru_cache(maxsize=1)
def _probes(directory: Path, round: int, key: str, device: str) -> list[Probe]:
    """The round's probes with their encoded reference batches, which all shards share; ``key`` is the replays'."""
    with open_recipe(directory) as recipe:
        probes, steps = [], probe_steps_of(recipe.catalog.descent)
        for replicate, record in enumerate(_replicates(recipe, round)):
            with safe_open(record.with_suffix(".safetensors"), "pt", device=device) as file:
                learner = learner_of(recipe, round, replicate, file)
                for step in steps:
                    point = ProbePoint(step, file.get_tensor(f"theta.{step}"), file.get_tensor(f"gamma.{step}"))
                    probes.append(Probe(learner, point))
        return probes


def learner_of(recipe: PoolRecipe, round: int, replicate: int, replayed: Any) -> Learner:
    """The learner of a round, that knows the batches at its probe steps and need not order the pool for them."""
    steps, seed = probe_steps_of(recipe.catalog.descent), seed_of(recipe, replicate)
    if not {f"batch.{step}" for step in steps} <= set(replayed.keys()):  # an earlier version replayed it
        return recipe.learner(counts_of(recipe, round), seed, round)[0]
    known = {step: replayed.get_tensor(f"batch.{step}").cpu().numpy() for step in steps}
    return replace(recipe, known_batches=known).learner(np.zeros(0, np.int64), seed, round)[0]


def _metagradient(recipe: PoolRecipe, round: int, probes: list[Path]) -> dict[str, Any]:
    """The columns of the table, each (n,): the mean over replicates of the sum over probe steps, at each of which the
    weight enters. Replicates, or else probe steps, tell its error by what they differ."""
    n, many = len(recipe), recipe.catalog.descent.replicates
    paths, visits = [], np.zeros(n, np.int32)
    for record in _replicates(recipe, round):
        with safe_open(record.with_suffix(".safetensors"), "np") as file:
            paths.append(file.get_tensor("example").astype(np.float64))
            visits += file.get_tensor("visits").astype(np.int32)
    if recipe.catalog.descent.surrogate == "path":
        g, error = _mean(np.stack(paths, 1)) if many > 1 else (paths[0], pa.nulls(n, pa.float64()))
        return {"g": g, "probed": visits > 0, "visits": visits, "g_error": error}
    ids, columns = [], []
    for record in probes:
        with safe_open(record.with_suffix(".safetensors"), "np") as file:
            ids.append(file.get_tensor("ids"))
            columns.append(file.get_tensor("g"))
    shards = {record.name for record in probes}
    all_of_them = len(shards) == len(probes) == len(columns_of(recipe.pool).names)
    assert all_of_them, "the shards' units have not probed each masked sample once"
    g, probed, error = np.zeros(n), np.zeros(n, bool), np.full(n, np.nan)
    for members, matrix in zip(ids, columns, strict=True):
        probed[members] = True
        steps = matrix.shape[1] // many
        if many > 1:
            g[members], error[members] = _mean(matrix.reshape(len(matrix), many, steps).sum(2))
            continue
        g[members] = matrix.sum(1)
        if steps > 1:
            error[members] = matrix.std(1, ddof=1) * np.sqrt(steps)
    return {"g": g, "probed": probed, "visits": visits, "g_error": pa.array(error, mask=np.isnan(error))}


def _mean(replicates: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean over replicates (n, replicates) and its standard error, each (n,)."""
    return replicates.mean(1), replicates.std(1, ddof=1) / np.sqrt(replicates.shape[1])
