"""Which round's subset is the result: chosen by the held-out part of the target, which no metagradient saw.

The best of many rounds by a held-out set of a few hundred pictures is the luckiest one: the accuracy of one model has a
standard error of sqrt(a (1 - a) / n). ``heldout_accuracy_1se`` is the rule of Breiman et al. (Classification and
Regression Trees, 1984) turned to rounds: of those within one standard error of the best, the last, whose counts rest on
the most metagradients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.catalog.recipe_options import NO_ROUNDS, Selection
from tasks.modality.registry import open_recipe
from tasks.tables.published import publish, read


def choose_round(directory: Path) -> int:
    """The round that the catalog's rule chooses; publishes ``choices`` and returns it. Without rounds that is 0, the
    counts that it starts with."""
    with open_recipe(directory) as recipe:
        if not recipe.catalog.descent.rounds:
            publish(recipe.run.home, recipe.run.id, "choices", 0, pa.table({"rule": [NO_ROUNDS], "value": [None]}))
            return 0
        rule = recipe.catalog.descent.select
        rounds = read(recipe.run.home, recipe.run.id, "rounds").sort_by("round")
        column = "heldout_loss" if rule == "heldout_loss" else "heldout_accuracy"
        values = rounds[column].to_numpy()
        heldout = recipe.task_data.heldout
        pictures = getattr(heldout, "effective", len(heldout))
        best = best_round(rule, values, pictures, len(recipe.catalog.descent.blends))
        chosen = int(rounds["round"][best].as_py())
        choice = pa.Table.from_pylist([{"rule": rule, "value": float(values[best])}])
        publish(recipe.run.home, recipe.run.id, "choices", chosen, choice)
        return chosen


def best_round(rule: Selection, values: npt.NDArray[np.float64], pictures: float, blends: int = 0) -> int:
    """Index of the chosen round among held-out losses (nats) or accuracies (shares of ``pictures``), both (rounds,);
    the earliest on a tie. The last ``blends`` are chosen only where they are better than every other."""
    descent, after = values[: len(values) - blends], values[len(values) - blends :]
    if blends:
        sign = 1 if rule == "heldout_loss" else -1
        best = int((sign * after).argmin())
        if (sign * after)[best] < (sign * descent).min():
            return len(descent) + best
        return best_round(rule, descent, pictures)
    if rule == "heldout_loss":
        return int(values.argmin())
    top = int(values.argmax())
    if rule == "heldout_accuracy":
        return top
    error = np.sqrt(values[top] * (1 - values[top]) / pictures)
    return int(np.flatnonzero(values >= values[top] - error)[-1])
