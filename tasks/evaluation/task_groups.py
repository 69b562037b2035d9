"""Metrics over groups of samples, for the tasks of DataComp that have them: the columns of a set's `npy` members.

As its evaluation code has them (WILDS' evaluators): a group is a value of one column; accuracies are listed for each
value from 0 to the largest, empty ones as 0 with count 0, and an empty group is never the worst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.evaluation.datacomp import tasks
from tasks.evaluation.measures import share_error
from tasks.evaluation.metrics import Whole, group_accuracy, hits, macro_f1, mean_per_class_recall, worst_group


@dataclass(frozen=True)
class Grouping:
    """A column that parts a task's samples: its name and place, the answers that count (`top`), and what the metrics
    are called: accuracies `name`, the worst one `worst`."""

    by: str
    column: int
    top: int = 1
    name: str = "acc"
    worst: str = "acc_wg"


GROUPINGS: Mapping[str, tuple[Grouping, ...]] = {
    "fairness/dollar_street": (Grouping("income_ds", 0, 5, "acc_top5", "acc_top5_wg"),),
    "fairness/geode": (Grouping("region", 0),),
    "wilds/camelyon17": (Grouping("slide", 1),),
    "wilds/fmow": (Grouping("year", 1, worst="acc_worst_year"), Grouping("region", 0, worst="acc_worst_region")),
}
"""DataComp's. FMoW's code means to leave the region `Other` out, but looks for a name where there is a number, so all
regions count; so do they here."""
MACRO = "wilds/iwildcam"
"""The task with macro averages instead of groups."""
ANY = (Grouping("group", 0),)
"""What a set of no known task is parted by, if it has `npy` members."""


def group_metrics(key: str, ranked: Whole, labels: Whole, columns: npt.NDArray[np.int64] | None) -> dict[str, float]:
    """The metrics that a task has beside accuracy; ``ranked`` (n, <= 5): classes by score, ``columns`` (n, k).

    Raises ValueError when a task with groups has no such column.
    """
    if key == MACRO:
        predicted = ranked[:, 0]
        recall, accuracy = mean_per_class_recall(predicted, labels), float((predicted == labels).mean())
        return {"acc_avg": accuracy, "recall-macro_all": recall, "F1-macro_all": macro_f1(predicted, labels)}
    groupings = GROUPINGS.get(key, ANY if columns is not None and key not in tasks() else ())
    found: dict[str, float] = {}
    for grouping in groupings:
        if columns is None or columns.shape[1] <= grouping.column:
            raise ValueError(f"its samples' npy members lack column {grouping.column} ({grouping.by})")
        right = hits(ranked, labels, grouping.top)
        found |= by_group(grouping.name, right, {grouping.by: columns[:, grouping.column]}, grouping.worst)
    return found


def group_errors(found: Mapping[str, float | None], n: int) -> dict[str, tuple[int, float]]:
    """Samples and standard error of the accuracies that `by_group` found among ``n`` samples: of all, in each group
    that has any, and in the worst."""
    errors: dict[str, tuple[int, float]] = {}
    for label in (key.removeprefix("count_") for key in found if key.startswith("count_")):
        size = int(found[f"count_{label}"] or 0)
        for key in (key for key in found if key.endswith(f"_{label}") and not key.startswith("count_") and size):
            errors[key] = size, share_error(found[key] or 0.0, size)
    for key, value in found.items():
        if key.endswith("_avg") and value is not None:
            errors[key] = n, share_error(value, n)
        elif key not in errors and not key.startswith("count_") and value is not None:
            prefix = re.sub(r"_(wg|worst_\w+)$", "_", key)
            worst = [error for name, error in errors.items() if name.startswith(prefix) and found[name] == value]
            if prefix != key and worst:
                errors[key] = min(worst)  # of groups that are equally bad the smallest
    return errors


def by_group(name: str, right: npt.NDArray[np.bool_], parted: Mapping[str, Whole], worst: str = "") -> dict[str, float]:
    """Accuracy ``name``: over all samples, in each group of equal values of the columns ``parted``, in the worst."""
    sizes = [int(values.max()) + 1 for values in parted.values()]
    groups = np.ravel_multi_index(tuple(parted.values())[::-1], sizes[::-1])
    accuracy, counts = group_accuracy(right, groups)
    found = {f"{name}_avg": float(right.mean())}
    for group in range(int(np.prod(sizes))):
        values = np.unravel_index(group, sizes[::-1])
        label = "_".join(f"{by}:{value}" for by, value in zip(reversed(list(parted)), values, strict=True))
        within = group < len(counts)
        found[f"{name}_{label}"] = float(accuracy[group]) if within else 0.0
        found[f"count_{label}"] = float(counts[group]) if within else 0.0
    return found | {worst or f"{name}_wg": worst_group(accuracy, counts)}
