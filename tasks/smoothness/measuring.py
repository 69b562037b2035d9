"""How smooth a recipe is: trainings at z, z + h v and z + 2 h v, unit by unit.

z is the weight of every sample, 1, and is moved where the metagradient differentiates: at each visit from the window's
first step k on. So all trainings of a recipe share their first k steps, and its directions the training at z: 2 D + 1
times T - k steps and k more for D directions. Where they crop, all see the same crops. Each unit is found done by its
record; the parameters in between lie beside the records until the recipe is done. The metagradient beside it:
`tasks.smoothness.metagradient_check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import safe_open
from torch import Tensor

from mgd_core.analysis.smoothness import UndefinedSmoothness, along, direction, reweighted
from mgd_core.engine.replay import train
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.training.optimizers import State
from tasks.catalog.smoothness_options import SmoothnessOptions
from tasks.curation.checkpoint_plan import plan_of
from tasks.curation.estimate import publish_pool
from tasks.curation.step_costs import measure
from tasks.files.artefacts import is_done, publish_json, read_json
from tasks.files.progress import announcing, say
from tasks.homes.working_copies import removed
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.modality.tensor_files import publish_tensors
from tasks.smoothness.menu import OWN, Variant, applied, variants
from tasks.tables.published import publish

FOLDER = "smoothness"


@dataclass(frozen=True)
class Base:
    """The training at z: the state before the window's first step, the last parameters (P,) and what they score."""

    start: State
    theta: Tensor
    figures: dict[str, float]


def prepare(directory: Path, options: SmoothnessOptions, sweep: bool, curated: bool = False) -> list[Variant]:
    """Recipes to measure, the catalog's own first; says what they will cost. ``curated``: round 0 comes anyway.

    Raises:
        CatalogError: a value of the menu cannot be had.
        NondeterminismError: the same step, run twice, gave different bits.
    """
    with open_recipe(directory) as recipe:
        publish_pool(recipe)
        found = [OWN, *(variants(recipe, options.menu) if sweep else [])]
        say(_forecast(recipe, options, found, curated))
        return found


def train_base(directory: Path, variant: Variant) -> Path:
    """Train a recipe at z and evaluate it; returns the path of its record, which says why if it failed."""
    with open_recipe(directory) as own:
        recipe, record, key = unit_of(own, variant, "base")
        if not (is_done(record, key) and (failure_of(record) or record.with_suffix(".safetensors").exists())):
            record_result(record, key, partial(_train_base, recipe, variant, record.with_suffix(".safetensors")))
        return record


def measure_direction(directory: Path, variant: Variant, number: int, h: float) -> Path:
    """Train a recipe at z + h v and z + 2 h v for direction ``number``; returns the path of its record."""
    with open_recipe(directory) as own:
        recipe, record, key = _direction_unit(own, variant, number, h)
        if not is_done(record, key):
            base = train_base(directory, variant)
            failure = failure_of(base)
            measured = partial(_measure, recipe, variant, number, h, base)
            publish_json(record, {"key": key, "failure": failure}) if failure else record_result(record, key, measured)
        return record


def forget_states(directory: Path, variant: Variant) -> None:
    """Remove the parameters of a recipe whose directions are measured."""
    with open_recipe(directory) as own:
        _, record, _ = unit_of(own, variant, "base")
        removed(record.with_suffix(".safetensors"))
        record.with_suffix(".safetensors").unlink(missing_ok=True)


def publish_smoothness(directory: Path, options: SmoothnessOptions) -> None:
    """Publish what is measured of the catalog's recipe and its menu."""
    with open_recipe(directory) as recipe:
        run, own = recipe.run, _rows(recipe, OWN, options)
        assert own, "the catalog's own recipe is published before it is measured"
        rows = own + [row for variant in variants(recipe, options.menu) for row in _rows(recipe, variant, options)]
        publish(run.home, run.id, "smoothness", 0, pa.Table.from_pylist(rows))


def record_result(record: Path, key: str, work: partial[dict[str, Any]]) -> None:
    """Do a unit and record what it gave, or that it left the range of numbers, which is a result too."""
    try:
        publish_json(record, {"key": key, "failure": "", **work()})
    except (NonFiniteError, UndefinedSmoothness) as error:
        publish_json(record, {"key": key, "failure": str(error)})


def _train_base(recipe: PoolRecipe, variant: Variant, path: Path) -> dict[str, Any]:
    learner, state = recipe.learner()
    on = announcing(f"smoothness, {variant.name}: at z", learner.steps)
    start, _ = train(learner, state, 0, recipe.catalog.descent.window_start, on=on)
    final, _ = train(learner, start, recipe.catalog.descent.window_start, on=on)
    tasks = recipe.targets(learner)
    tensors = {"final": final.theta, **{f"start.{i}": x for i, x in enumerate(start.tensors)}}
    publish_tensors(path, tensors)
    return {
        "target_loss": tasks.target.score(final.theta).loss,
        "heldout_accuracy": tasks.heldout.score(final.theta).accuracy,
    }


def _measure(recipe: PoolRecipe, variant: Variant, number: int, h: float, base: Path) -> dict[str, Any]:
    learner, _ = recipe.learner()
    target, begin = recipe.targets(learner).target, recipe.catalog.descent.window_start
    at = load_base(base, recipe.catalog.runtime.device)
    v = direction(len(recipe), recipe.catalog.descent.seed, number).to(at.theta.device)
    thetas, losses = [at.theta], [at.figures["target_loss"]]
    for steps in (1, 2):
        on = announcing(f"smoothness, {variant.name}: z + {steps} h v{number}", learner.steps)
        final, _ = train(reweighted(learner, steps * h * v, begin), at.start, begin, on=on)
        thetas.append(final.theta)
        losses.append(target.score(final.theta).loss)
    return {**along(thetas, losses, h)._asdict(), "losses": losses}


def load_base(record: Path, device: str) -> Base:
    """The training at z of a record that :func:`train_base` wrote."""
    with safe_open(record.with_suffix(".safetensors"), "pt", device=device) as file:
        names = sorted(name for name in file.keys() if name.startswith("start."))  # noqa: SIM118
        theta, *moments = [file.get_tensor(name) for name in names]
        return Base(State(theta, tuple(moments)), file.get_tensor("final"), read_json(record))


def unit_of(recipe: PoolRecipe, variant: Variant, name: str, *inputs: object) -> tuple[PoolRecipe, Path, str]:
    """The variant's recipe, and the record and key of one of its units."""
    record = recipe.run.work(FOLDER, variant.folder, f"{name}.json")
    return applied(recipe, variant), record, recipe.run.key(FOLDER, variant.knob, variant.value, *inputs)


def failure_of(record: Path) -> str:
    """Why a unit's training failed; empty if it did not."""
    return str(read_json(record)["failure"])


def _direction_unit(recipe: PoolRecipe, variant: Variant, number: int, h: float) -> tuple[PoolRecipe, Path, str]:
    return unit_of(recipe, variant, f"direction-{number:02d}-h{h:g}", number, h)


def lds_of(own: PoolRecipe, variant: Variant, options: SmoothnessOptions) -> float | None:
    """The recorded score of a recipe; None where it was not asked for, or a training failed."""
    _, record, key = lds_unit(own, variant, options)
    return read_json(record).get("lds") if options.lds_subsets and is_done(record, key) else None


def lds_unit(own: PoolRecipe, variant: Variant, options: SmoothnessOptions) -> tuple[PoolRecipe, Path, str]:
    """The variant's recipe, and record and key of its score."""
    return unit_of(own, variant, "lds", options.lds_subsets, options.lds_share)


def _rows(recipe: PoolRecipe, variant: Variant, options: SmoothnessOptions) -> list[dict[str, Any]]:
    """A recipe's rows of the table; none while a direction is missing."""
    units = [_direction_unit(recipe, variant, number, options.h) for number in range(options.directions)]
    if not all(is_done(record, key) for _, record, key in units):
        return []
    figures = read_json(unit_of(recipe, variant, "base")[1])
    rows = []
    for number, (_, record, _) in enumerate(units):
        row = {"variant": variant.name, "direction": number, "h": options.h}
        row |= {name: figures.get(name) for name in ("target_loss", "heldout_accuracy")}
        measured = read_json(record)
        row |= {name: measured.get(name) for name in ("score", "curvature", "movement", "failure")}
        rows.append(row | {"lds": lds_of(recipe, variant, options)})
    return rows


def _forecast(recipe: PoolRecipe, options: SmoothnessOptions, found: list[Variant], curated: bool) -> str:
    """One sentence on what the measurement costs, in steps and minutes."""
    costs = measure(recipe)
    step, reverse = costs.step, costs.reverse
    seconds, total = 0.0, 0
    for variant in found:
        catalog = applied(recipe, variant).catalog
        steps, start = catalog.learner.steps, catalog.descent.window_start
        own = start + (2 * options.directions + 1 + options.lds_subsets) * (steps - start)
        if options.lds_subsets:
            own += steps
            seconds += (steps - start) * reverse * catalog.learner.batch / recipe.catalog.learner.batch
        total += own
        seconds += own * step * catalog.learner.batch / recipe.catalog.learner.batch
    plan, steps = plan_of(recipe), recipe.catalog.learner.steps
    told = f"smoothness: {len(found)} recipes" if len(found) > 1 else "smoothness of the recipe"
    told += f" along {options.directions} directions: {total:,} training steps ({step:.3f} s each at its own batch)"
    if not curated:
        again = steps + plan.advances - plan.steps + 1
        seconds += again * step + plan.steps * reverse
        told += f"; a metagradient, that of round 0: {again} steps and {plan.steps} in reverse ({reverse:.3f} s each)"
    return f"{told}. About {seconds / 60:.1f} minutes from nothing; finished parts are not run again."
