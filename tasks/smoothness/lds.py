"""What a recipe's metagradient predicts of trainings without some samples: the linear datamodelling score, where asked.

Smoothness says whether a metagradient can mean anything; this says what it does mean, for N more trainings of the
window and one metagradient a recipe. Random subsets lose their weight from the window's first step on; the score is
Spearman's rank correlation of the predicted and the true changes of the target loss (Park et al. 2023, arXiv
2303.14186; mgd_core.analysis.attribution). Each training is a unit with its own record.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from mgd_core.analysis.attribution import Drops, drop_sets, predicted_changes, scores
from mgd_core.analysis.smoothness import reweighted
from mgd_core.engine.replay import replay, train
from tasks.catalog.smoothness_options import SmoothnessOptions
from tasks.curation.checkpoint_plan import plan_of
from tasks.files.artefacts import is_done, read_json
from tasks.files.progress import announce, announcing
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.modality.tensor_files import publish_tensors
from tasks.smoothness.measuring import failure_of, lds_unit, load_base, record_result, train_base, unit_of
from tasks.smoothness.menu import Variant


def measure_lds(directory: Path, variant: Variant, options: SmoothnessOptions) -> None:
    """Take a recipe's metagradient, train it without each of the subsets, and record the score."""
    with open_recipe(directory) as own:
        recipe, record, key = lds_unit(own, variant, options)
        if is_done(record, key):
            return
        base = train_base(directory, variant)
        record_result(record, key, partial(_score, own, recipe, variant, options, base))


def _score(
    own: PoolRecipe, recipe: PoolRecipe, variant: Variant, options: SmoothnessOptions, base: Path
) -> dict[str, Any]:
    if failure_of(base):
        return {"failure": failure_of(base)}
    drops = drop_sets(len(recipe), options.lds_share, options.lds_subsets, recipe.catalog.descent.seed)
    predicted = predicted_changes(_metagradient(own, recipe, variant)[None], drops)
    changes = [_change(own, recipe, variant, options, base, drops, number) for number in range(len(drops))]
    return {"lds": float(scores(predicted, np.array(changes)[:, None])[0])}


def _metagradient(own: PoolRecipe, recipe: PoolRecipe, variant: Variant) -> torch.Tensor:
    """d target loss / d weight of each sample (n,), its weight entering at every visit in the window."""
    _, record, key = unit_of(own, variant, "path-metagradient")
    path = record.with_suffix(".safetensors")
    if not is_done(record, key):
        learner, state = recipe.learner()
        plan, target = plan_of(recipe), recipe.targets(learner).target
        what = f"smoothness, {variant.name}: metagradient"
        on = announcing(f"{what}, step", learner.steps, f"{what}, reverse", plan.steps)
        example = replay(learner, state, target.target, plan, len(recipe), on=on).example
        publish_tensors(path, {"g": example})
        record_result(record, key, partial(dict[str, Any]))
    with safe_open(path, "pt") as file:
        return file.get_tensor("g")


def _change(
    own: PoolRecipe,
    recipe: PoolRecipe,
    variant: Variant,
    options: SmoothnessOptions,
    base: Path,
    drops: Drops,
    number: int,
) -> float:
    """True change of the target loss without a subset, nats."""
    _, record, key = unit_of(own, variant, f"lds-{number:03d}", options.lds_share)
    if not is_done(record, key):
        record_result(record, key, partial(_train_without, recipe, variant, base, drops[number], (number, len(drops))))
    found = read_json(record)
    return float(found["change"]) if "change" in found else float("inf")


def _train_without(
    recipe: PoolRecipe, variant: Variant, base: Path, dropped: Any, place: tuple[int, int]
) -> dict[str, Any]:
    learner, _ = recipe.learner()
    at, begin = load_base(base, recipe.catalog.runtime.device), recipe.catalog.descent.window_start
    less = torch.from_numpy(-dropped.astype(np.float32)).to(at.theta.device)
    final, _ = train(reweighted(learner, less, begin), at.start, begin)
    announce(f"smoothness, {variant.name}: without subset", place[0] + 1, place[1])
    return {"change": recipe.targets(learner).target.score(final.theta).loss - at.figures["target_loss"]}
