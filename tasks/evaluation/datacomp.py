"""DataComp's tasks and scales: the facts that its own tools hard-code, as data (`catalogs/datacomp/`).

40 tasks are evaluated; 38 have a main metric and make the averages (FairFace and UTKFace have none). Scores are shares,
0 to 1. Sources: DataComp (arXiv 2304.14108), its tasklist.yml, scale_configs.py and aggregate_scores.py.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from tasks.files.option_types import Strict
from tasks.files.package_data import CATALOGS

Scale = Literal["small", "medium", "large", "xlarge"]
# As aggregate_scores.py calls the groups.
GROUPS = {"ImageNet": "ImageNet", "shifts": "ImageNet dist. shifts", "vtab": "VTAB", "retrieval": "Retrieval"}


class Task(Strict):
    """A task: its key in results files, the name it is listed under, test samples, main metric, group of the
    averages."""

    key: str
    name: str
    size: int
    metric: str
    group: Literal["ImageNet", "shifts", "vtab", "retrieval", ""]


class ScaleConfig(Strict):
    """What is trained at a scale, and how many samples its candidate pool has."""

    model: str
    batch_size: int
    learning_rate: float
    warmup: int
    beta2: float | Literal["default"]
    train_num_samples: int
    pool: int


@cache
def tasks() -> dict[str, Task]:
    """The 40 tasks by key."""
    with open(CATALOGS / "datacomp" / "tasks.csv", newline="", encoding="utf-8") as file:
        found = [Task.model_validate(row) for row in csv.DictReader(file)]
    return {task.key: task for task in found}


@cache
def scale_config(scale: Scale) -> ScaleConfig:
    """The configuration of a scale."""
    table: dict[str, Any] = tomllib.loads((CATALOGS / "datacomp" / "scales.toml").read_text("utf-8"))
    return ScaleConfig.model_validate(table[scale])


def aggregates(scores: Mapping[str, float]) -> dict[str, float]:
    """ImageNet, the means of the three groups, and the mean over all 38 tasks, from main metrics by task key."""
    counted = [task for task in tasks().values() if task.metric]
    found = {
        title: _mean([scores[task.key] for task in counted if task.group == group]) for group, title in GROUPS.items()
    }
    return {**found, "Average": _mean([scores[task.key] for task in counted])}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
