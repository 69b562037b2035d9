"""The mean over several tests, of each training and metric: a figure for all of them, with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.evaluation.measures import metric

PLACE = ("source", "split", "folder")
"""What two tests of the same samples have in common in a catalog."""


def means_over_tests(rows: Sequence[dict[str, Any]], tests: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Evaluation rows of the mean over all tests, of each training and metric that every test has and of which more is
    better. ``tests``: the catalog's sections, by name."""
    names = sorted({row["task"] for row in rows})
    if len(names) < 2:
        return []
    task = f"mean of {len(names)} tests"
    while task in names:
        task = f"the {task}"
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["subset"], row["seed"], row["metric"]), []).append(row)
    whole = [
        group for (_, _, name), group in groups.items() if metric(name).higher_is_better and len(group) == len(names)
    ]
    return [{**group[0], "task": task, **_mean_of(group, tests)} for group in whole]


def _mean_of(group: Sequence[dict[str, Any]], tests: Mapping[str, Any]) -> dict[str, Any]:
    """Value, n and standard error of a mean over tests: those of the same pictures err together, others apart."""
    sizes, errors = ([row.get(key) for row in group] for key in ("n", "standard_error"))
    together: dict[str, float] = {}
    for row, error in zip(group, errors, strict=True):
        place = {key: value for key, value in tests.get(row["task"], {}).items() if key in PLACE}
        together[str(place or row["task"])] = together.get(str(place or row["task"]), 0.0) + (error or 0.0)
    return {
        "value": float(np.mean([row["value"] for row in group])),
        "n": None if None in sizes else sum(sizes),
        "standard_error": None if None in errors else float(np.linalg.norm(list(together.values()))) / len(group),
    }
