"""Which round's subset is the result: chosen by the held-out part of the target, which no metagradient saw.

The best of many rounds by a held-out set of a few hundred pictures is the luckiest one: the accuracy of one model has a
standard error of sqrt(a (1 - a) / n). ``heldout_accuracy_1se`` is the rule of Breiman et al. (Classification and
Regression Trees, 1984) turned to rounds: of those within one standard error of the best, the last, whose counts rest on
the most metagradients.

Blends stand against the round that is so chosen. That one was the luckiest of many and a blend is one of few, so what
they were first trained to says little about which is better: each is trained afresh, from the same initial weights and
orders as the others (`descent.final_trainings`), and the mean over those trainings decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mgd_core.training.streams import REPLICATES
from tasks.catalog.recipe_options import NO_ROUNDS, Selection
from tasks.curation.counts_digest import counts_digest
from tasks.curation.multitask.units import in_units, units_of
from tasks.curation.rounds import counts_of, replayed
from tasks.curation.trained import trained_parameters
from tasks.files.artefacts import is_done, publish_json, read_json
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.tables.published import publish, read


def finalists(directory: Path) -> list[int]:
    """The rounds that are trained afresh before one is chosen: the best by the catalog's rule, and each blend. None
    where there is no blend, as the rule is enough then."""
    with open_recipe(directory) as recipe:
        descent = recipe.catalog.descent
        if not descent.blends:
            return []
        return [_best(recipe)[0], *range(descent.rounds + 1, descent.trained_rounds)]


def train_finalist(directory: Path, round: int, number: int) -> Path:
    """Train what a round trained on once more, as ``number`` (from 1) of its trainings, and keep what the held-out part
    says; returns the path of the record."""
    with open_recipe(directory) as recipe:
        counts = counts_of(recipe, round)
        record = recipe.run.work("finals", f"round-{round:03d}-{number}.json")
        key = recipe.run.key("final", number, counts_digest(counts))
        if not is_done(record, key):
            seed = recipe.catalog.descent.seed + number * REPLICATES
            theta = trained_parameters(recipe, counts, f"the choice of round {round}", seed, keep=False)
            learner, _ = recipe.learner(counts, seed)
            units = units_of(recipe, replayed(recipe.run, 0), learner, theta)
            found = in_units(recipe.targets(learner).heldout, units).score(theta)
            row = {"seed": seed, "heldout_loss": found.loss, "heldout_accuracy": found.accuracy}
            publish_json(record, {"key": key, "round": round, "row": row})
        return record


def choose_round(directory: Path, finals: Sequence[Path] = ()) -> int:
    """The round that the catalog's rule chooses, by the records of its finalists if it has some; publishes ``finals``
    and ``choices`` and returns it. Without rounds that is 0, the counts that it starts with."""
    with open_recipe(directory) as recipe:
        home, run, descent = recipe.run.home, recipe.run.id, recipe.catalog.descent
        if not descent.rounds:
            publish(home, run, "choices", 0, pa.table({"rule": [NO_ROUNDS], "value": [None]}))
            return 0
        chosen, value = _best(recipe)
        if finals:
            by_round: dict[int, list[dict[str, Any]]] = {}
            for record in map(read_json, finals):
                by_round.setdefault(record["round"], []).append(record["row"])
            for number, rows in by_round.items():
                publish(home, run, "finals", number, pa.Table.from_pylist(rows))
            column = _measured_by(descent.select)
            chosen, value = best_finalist(
                descent.select, {number: [row[column] for row in rows] for number, rows in by_round.items()}
            )
        publish(home, run, "choices", chosen, pa.Table.from_pylist([{"rule": descent.select, "value": value}]))
        return chosen


def best_round(rule: Selection, values: npt.NDArray[np.float64], pictures: float) -> int:
    """Index of the chosen round among held-out losses (nats) or accuracies (shares of ``pictures``), both (rounds,);
    the earliest on a tie."""
    if rule == "heldout_loss":
        return int(values.argmin())
    top = int(values.argmax())
    if rule == "heldout_accuracy":
        return top
    error = np.sqrt(values[top] * (1 - values[top]) / pictures)
    return int(np.flatnonzero(values >= values[top] - error)[-1])


def best_finalist(rule: Selection, values: dict[int, list[float]]) -> tuple[int, float]:
    """The finalist of the best mean, and that mean; ``values``: held-out losses or accuracies of its trainings, by
    round. The earliest on a tie."""
    sign = 1 if rule == "heldout_loss" else -1
    means = {number: float(np.mean(found)) for number, found in sorted(values.items())}
    best = min(means, key=lambda number: sign * means[number])
    return best, means[best]


def _best(recipe: PoolRecipe) -> tuple[int, float]:
    """The round of the descent that the rule chooses, blends apart, and what it measured there."""
    descent = recipe.catalog.descent
    rounds = read(recipe.run.home, recipe.run.id, "rounds").sort_by("round").slice(0, descent.rounds + 1)
    values = rounds[_measured_by(descent.select)].to_numpy()
    heldout = recipe.task_data.heldout
    best = best_round(descent.select, values, getattr(heldout, "effective", len(heldout)))
    return int(rounds["round"][best].as_py()), float(values[best])


def _measured_by(rule: Selection) -> str:
    return "heldout_loss" if rule == "heldout_loss" else "heldout_accuracy"
