"""Before the rounds: is a step deterministic here, and what will the run cost?"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mgd_core.plans.actions import Plan
from mgd_core.plans.planning import Forecast
from tasks.catalog.subset_names import file_name
from tasks.curation.checkpoint_plan import alternatives, forecast_of, plan_of
from tasks.curation.expression_baselines import prepare_baselines
from tasks.curation.multitask.wanted import cost_of, told_rounds
from tasks.curation.ranking import needs_round_0
from tasks.curation.rounds import first_counts, probe_steps_of
from tasks.curation.step_costs import measure, ranks_note, reading_note
from tasks.files.plurals import counted
from tasks.files.progress import begin, say
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.tables.published import files, publish, read_parquet
from tasks.tables.streams import publishing_rows

STRETCH = 1 << 16
"""Samples that are held while the pool's table is published."""


def prepare(directory: Path) -> None:
    """Publish the pool's tables and round 0's counts, check determinism on one step, and say what the run will cost.

    Raises:
        NondeterminismError: the same step, run twice, gave different bits.
    """
    begin("read the pool and the targets")
    with open_recipe(directory) as recipe:
        prepare_baselines(recipe)
        publish_pool(recipe)
        if not recipe.catalog.descent.rounds:
            say(_comparison_only(recipe))
            return
        begin("measure a training step and a reverse step")
        plan = plan_of(recipe)
        for note in _notes(recipe):
            say(note)
        say(_forecast(recipe, plan))
        say(f"each differentiated round: {forecast_of(recipe, plan)}")
        for note in _by_task(recipe, plan):
            say(note)


def describe_plans(directory: Path) -> str:
    """The run's plan and what other plans would cost, as a table for a terminal."""
    begin("read the pool, and measure a step of the recipe")
    with open_recipe(directory) as recipe:
        own = forecast_of(recipe, plan_of(recipe))
        others = [one for one in alternatives(recipe) if one.plan != own.plan]
        rows = [(one.plan.advances - one.plan.steps + 1, _held(one), one) for one in (own, *others)]
        notes = [*_notes(recipe), *_by_task(recipe, own.plan)]
    steps, size = own.plan.steps, max(len(held) for _, held, _ in rows)
    lines = [
        f"{recipe.catalog.name}: {steps} of {recipe.catalog.learner.steps} steps differentiated in each round",
        f"{'plan':<10}{'recomputed':>11}  {'states kept':<{size}}  {'a round':>9}",
    ]
    for i, (again, held, one) in enumerate(rows):
        mark = "  <- this catalog's" if i == 0 else ""
        lines.append(
            f"{one.plan.name:<10}{again:>5}{again / steps:>5.2f}x  {held:<{size}}  {one.seconds:>7.0f} s{mark}"
        )
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _held(forecast: Forecast) -> str:
    """States at once and their size, tier by tier."""
    peaks = forecast.plan.peak_states.items()
    return ", ".join(f"{n} on {tier} ({forecast.bytes[tier] / 2**20:,.0f} MiB)" for tier, n in peaks)


def publish_pool(recipe: PoolRecipe) -> None:
    """Publish the pool's tables and round 0's counts, once."""
    run = recipe.run
    if 0 not in files(run.home, run.id, "counts"):
        with publishing_rows(run.home, run.id, "samples", 0) as table, pq.ParquetFile(recipe.pool.samples_path) as file:
            for rows in file.iter_batches(STRETCH):
                table.add(pa.Table.from_batches([rows]))
        publish(run.home, run.id, "rejects", 0, read_parquet(recipe.pool.rejects_path))
        first_counts(recipe)


def _notes(recipe: PoolRecipe) -> list[str]:
    """What a person should know before training."""
    return [*recipe.notes(), *reading_note(recipe), *ranks_note(recipe)]


def _by_task(recipe: PoolRecipe, plan: Plan) -> list[str]:
    """A sentence on what it costs to tell g by task; none where that is not asked."""
    catalog, costs = recipe.catalog, measure(recipe)
    rounds = told_rounds(catalog, 0)
    if not rounds:
        return []
    many, descent = len(catalog.targets.told_by), catalog.descent
    sweeps = len(rounds) * descent.replicates
    steps = catalog.learner.steps + plan.advances - plan.steps + 1
    probes = many * descent.p * len(recipe) * len(probe_steps_of(descent)) * recipe.views / catalog.learner.batch
    seconds = sweeps * (plan.steps * costs.reverse * cost_of(many) + (steps + probes) * costs.step)
    return [
        f"What each of {counted(many, 'task')} (or groups of them) wants, targets.per_task = "
        f"'{catalog.targets.per_task}': {counted(len(rounds), 'round')} told, each by a reverse sweep with {many} "
        f"cotangents, {cost_of(many):.2f} times one ((6 Q + 2) / 8, where arithmetic is the cost), in "
        f"{many * costs.state_bytes / 2**20:,.0f} MiB of adjoints; about {seconds / 60:.1f} minutes in all."
    ]


def _trainings(recipe: PoolRecipe) -> int:
    """Trainings of the comparison."""
    trials = recipe.catalog.comparison
    return len(trials.compared) * len(set(trials.seeds))


def _comparison_only(recipe: PoolRecipe) -> str:
    """One sentence on what a run without rounds will do."""
    steps = counted(recipe.catalog.learner.steps, "step")
    trainings = _trainings(recipe) + needs_round_0(recipe.catalog)
    size = counted(len(recipe), "sample")
    return f"{size}; no round: comparison only, at most {counted(trainings, 'training')} of {steps}"


def _forecast(recipe: PoolRecipe, plan: Plan) -> str:
    """One sentence on what is left of the run, in steps and minutes."""
    catalog, costs = recipe.catalog, measure(recipe)
    descent, learner, step, reverse = catalog.descent, catalog.learner, costs.step, costs.reverse
    rounds, afresh = _left(recipe)
    differentiated = max(0, rounds - 1 - len(descent.blends))  # the last round only trains, and so do blends
    trainings = rounds + afresh + differentiated * (descent.replicates - 1)
    differentiated *= descent.replicates
    candidates = descent.p * len(recipe) * len(probe_steps_of(descent)) * recipe.views * differentiated
    again, reversed_steps = differentiated * (plan.advances - plan.steps + 1), differentiated * plan.steps
    # A probe is a forward-mode pass: about the matrix products of a training step for the same rows.
    steps = trainings * learner.steps + again
    seconds = steps * step + reversed_steps * reverse + candidates / learner.batch * step
    if not trainings:
        return f"{counted(len(recipe), 'sample')}; every round and training of the comparison is done"
    done = descent.trained_rounds - rounds
    return (
        f"{counted(len(recipe), 'sample')}; {counted(descent.rounds, 'round')}{f', {done} done' if done else ''}: "
        f"{counted(trainings, 'training')} of {counted(learner.steps, 'step')} ({step:.3f} s each), {again:,} "
        f"replayed, {counted(reversed_steps, 'reverse step')} ({reverse:.3f} s each), {candidates:,.0f} probes. "
        f"About {seconds / 60:.1f} minutes {'are left' if done else 'from nothing'}; finished parts are not run again."
    )


def _left(recipe: PoolRecipe) -> tuple[int, int]:
    """Rounds, the last evaluation among them, and trainings afresh, for the choice and the comparison, that have no
    record yet."""
    run, catalog = recipe.run, recipe.catalog
    rounds = catalog.descent.trained_rounds - len(files(run.home, run.id, "rounds"))
    trials = catalog.comparison
    wanted = [f"{file_name(subset)}-{seed}.json" for subset in trials.compared for seed in dict.fromkeys(trials.seeds)]
    finals = (1 + len(catalog.descent.blends)) * catalog.descent.final_trainings if catalog.descent.blends else 0
    finals = max(0, finals - len(list(run.work("finals").glob("*.json"))))
    return max(0, rounds), finals + sum(not run.work("comparison", name).exists() for name in wanted)
