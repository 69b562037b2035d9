"""One true metagradient, held against what was measured of smoothness: is it finite, of what size, and is it right?

Smoothness does not promise it: a recipe of S = 0.99 may have metagradients of NaN. It is the path metagradient of round
0, which a curation that follows finds done, so the check costs nothing that would not be spent anyhow. Where it is
right and the target loss is nearly straight, <g, h v> is the change from z to z + h v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from mgd_core.analysis.smoothness import direction
from tasks.catalog.smoothness_options import SmoothnessOptions
from tasks.curation.rounds import train_round
from tasks.files.artefacts import is_done, read_json
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.runs.run import Run
from tasks.smoothness.measuring import FOLDER, measure_direction, record_result
from tasks.smoothness.menu import OWN

NAME = "metagradient.json"


@dataclass(frozen=True)
class MetagradientCheck:
    """Size of a metagradient g, in nats, and the change of the target loss that it predicts along each direction."""

    failure: str
    """What became NaN or infinite; empty where nothing did."""
    largest: float = 0.0
    """Of |g| over the samples seen in the window."""
    median: float = 0.0
    predicted: Sequence[float] = ()
    """<g, h v> for each direction."""
    true: Sequence[float | None] = ()
    """The change from z to z + h v; None where that training failed."""


def check_metagradient(directory: Path, options: SmoothnessOptions) -> Path:
    """Take round 0's metagradient, or find it taken, and hold it against the directions; returns the record's path."""
    with open_recipe(directory) as recipe:
        record = recipe.run.work(FOLDER, NAME)
        key = recipe.run.key(FOLDER, NAME, options.directions, options.h)
        if not is_done(record, key):
            measured = [measure_direction(directory, OWN, number, options.h) for number in range(options.directions)]
            record_result(record, key, partial(_check, recipe, options.h, measured))
        return record


def load_check(directory: Path) -> MetagradientCheck:
    """What :func:`check_metagradient` found last."""
    found = read_json(Run.load(directory).work(FOLDER, NAME))
    return MetagradientCheck(**{name: value for name, value in found.items() if name != "key"})


def format_check(check: MetagradientCheck) -> str:
    """A few lines for a terminal."""
    if check.failure:
        return f"metagradient: not finite. {check.failure}"
    lines = [f"metagradient: finite; largest |g| {check.largest:.3g} nats, median {check.median:.3g}"]
    for number, (predicted, true) in enumerate(zip(check.predicted, check.true, strict=True)):
        seen = "the training failed" if true is None else f"it changed by {true:+.3g}"
        lines.append(f"  along v{number} it predicts a change of the target loss by {predicted:+.3g}; {seen}")
    return "\n".join(lines)


def _check(recipe: PoolRecipe, h: float, measured: list[Path]) -> dict[str, Any]:
    replayed = train_round(recipe.run.directory, 0, True)
    with safe_open(replayed.with_suffix(".safetensors"), "np") as file:
        g, visits = file.get_tensor("example").astype(np.float64), file.get_tensor("visits")
    size = np.abs(g[visits > 0])
    v = [direction(len(g), recipe.catalog.descent.seed, number).numpy() for number in range(len(measured))]
    losses = [read_json(record).get("losses") for record in measured]
    return {
        "largest": float(size.max()),
        "median": float(np.median(size)),
        "predicted": [float(h * g @ one) for one in v],
        "true": [found and found[1] - found[0] for found in losses],
    }
