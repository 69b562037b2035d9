"""How smooth a recipe is: trainings at z, z + h v and z + 2 h v, unit by unit.

z is the weight of every sample, 1, and is moved where the metagradient differentiates: at each visit from the window's
first step k on. So all trainings of a recipe share their first k steps, and its directions the training at z: 2 D + 1
times T - k steps and k more for D directions. Each unit is found done by its record; the parameters in between lie
beside the records until the recipe is done. The metagradient beside it: `tasks.metagradient_check`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mgd_core.replay import train
from mgd_core.smoothness import along, direction, reweighted
from tasks.artefacts import is_done, publish_json, read_json
from tasks.estimate import publish_pool
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.plans import plan_of
from tasks.progress import say
from tasks.smoothness_lds import lds_of
from tasks.smoothness_menu import OWN, Variant, applied, variants
from tasks.smoothness_options import SmoothnessOptions
from tasks.smoothness_table import own_score
from tasks.smoothness_units import (
    announce_steps,
    direction_unit,
    failure_of,
    load_base,
    record_result,
    train_base,
    unit_of,
)
from tasks.step_costs import measure
from tasks.tables import files, publish, read


def prepare(directory: Path, options: SmoothnessOptions, sweep: bool, curated: bool = False) -> list[Variant]:
    """Recipes to measure, the catalog's own first; says what they will cost. ``curated``: round 0 comes anyway.

    Raises:
        CatalogError: a value of the menu cannot be had.
        NondeterminismError: the same step, run twice, gave different bits.
    """
    with open_recipe(directory) as bench:
        publish_pool(bench)
        found = [OWN, *(variants(bench, options.menu) if sweep else [])]
        say(_forecast(bench, options, found, curated))
        return found


def measure_direction(directory: Path, variant: Variant, number: int, h: float) -> Path:
    """Train a recipe at z + h v and z + 2 h v for direction ``number``; returns the path of its record."""
    with open_recipe(directory) as own:
        bench, record, key = direction_unit(own, variant, number, h)
        if not is_done(record, key):
            base = train_base(directory, variant)
            failure = failure_of(base)
            measured = partial(_measure, bench, variant, number, h, base)
            publish_json(record, {"key": key, "failure": failure}) if failure else record_result(record, key, measured)
        return record


def forget_states(directory: Path, variant: Variant) -> None:
    """Remove the parameters of a recipe whose directions are measured."""
    with open_recipe(directory) as own:
        _, record, _ = unit_of(own, variant, "base")
        record.with_suffix(".safetensors").unlink(missing_ok=True)


def publish_smoothness(directory: Path, options: SmoothnessOptions) -> None:
    """Publish what is measured of the catalog's recipe and its menu, and enter it in round 0's row if there is one."""
    with open_recipe(directory) as bench:
        run, own = bench.run, _rows(bench, OWN, options)
        assert own, "the catalog's own recipe is published before it is measured"
        rows = own + [row for variant in variants(bench, options.menu) for row in _rows(bench, variant, options)]
        publish(run.home, run.id, "smoothness", 0, pa.Table.from_pylist(rows))
        if 0 in files(run.home, run.id, "rounds"):
            (figures,) = read(run.home, run.id, "rounds", 0).to_pylist()
            figures["smoothness"] = own_score(run.home, run.id)
            publish(run.home, run.id, "rounds", 0, pa.Table.from_pylist([figures]))


def _measure(bench: PoolRecipe, variant: Variant, number: int, h: float, base: Path) -> dict[str, Any]:
    learner, _ = bench.learner()
    target, begin = bench.targets(learner).target, bench.catalog.descent.window_start
    at = load_base(base, bench.catalog.runtime.device)
    v = direction(len(bench), bench.catalog.descent.seed, number).to(at.theta.device)
    thetas, losses = [at.theta], [at.figures["target_loss"]]
    for steps in (1, 2):
        on = partial(announce_steps, f"smoothness, {variant.name}: z + {steps} h v{number}", learner.steps)
        final, _ = train(reweighted(learner, steps * h * v, begin), at.start, begin, on=on)
        thetas.append(final.theta)
        losses.append(target.score(final.theta).loss)
    return {**along(thetas, losses, h)._asdict(), "losses": losses}


def _rows(bench: PoolRecipe, variant: Variant, options: SmoothnessOptions) -> list[dict[str, Any]]:
    """A recipe's rows of the table; none while a direction is missing."""
    units = [direction_unit(bench, variant, number, options.h) for number in range(options.directions)]
    if not all(is_done(record, key) for _, record, key in units):
        return []
    figures = read_json(unit_of(bench, variant, "base")[1])
    rows = []
    for number, (_, record, _) in enumerate(units):
        row = {"variant": variant.name, "direction": number, "h": options.h}
        row |= {name: figures.get(name) for name in ("target_loss", "heldout_accuracy")}
        measured = read_json(record)
        row |= {name: measured.get(name) for name in ("score", "curvature", "movement", "failure")}
        rows.append(row | {"lds": lds_of(bench, variant, options)})
    return rows


def _forecast(bench: PoolRecipe, options: SmoothnessOptions, found: list[Variant], curated: bool) -> str:
    """One sentence on what the measurement costs, in steps and minutes."""
    costs = measure(bench)
    step, reverse = costs.step, costs.reverse
    seconds, total = 0.0, 0
    for variant in found:
        catalog = applied(bench, variant).catalog
        steps, start = catalog.learner.steps, catalog.descent.window_start
        own = start + (2 * options.directions + 1 + options.lds_subsets) * (steps - start)
        if options.lds_subsets:
            own += steps
            seconds += (steps - start) * reverse * catalog.learner.batch / bench.catalog.learner.batch
        total += own
        seconds += own * step * catalog.learner.batch / bench.catalog.learner.batch
    plan, steps = plan_of(bench), bench.catalog.learner.steps
    told = f"smoothness: {len(found)} recipes" if len(found) > 1 else "smoothness of the recipe"
    told += f" along {options.directions} directions: {total:,} training steps ({step:.3f} s each at its own batch)"
    if not curated:
        again = steps + plan.advances - plan.steps + 1
        seconds += again * step + plan.steps * reverse
        told += f"; a metagradient, that of round 0: {again} steps and {plan.steps} in reverse ({reverse:.3f} s each)"
    return f"{told}. About {seconds / 60:.1f} minutes from nothing; finished parts are not run again."
