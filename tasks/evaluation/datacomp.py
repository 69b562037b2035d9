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
UNPREFIXED = ("fairness/", "retrieval/", "misc/")
"""Parts of a task's key that folders leave out."""
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


def task_key(folder: str) -> str:
    """Key of the task that a folder's name stands for: DataComp's; else `wds/NAME`, as clip_benchmark has it."""
    return folder_names().get(folder) or f"wds/{folder.removeprefix('wds_').removesuffix('_test')}"


def folder_names() -> dict[str, str]:
    """DataComp's task keys by the names that their folders go by."""
    names: dict[str, str] = {}
    for key in tasks():
        short = next((key.removeprefix(part) for part in UNPREFIXED if key.startswith(part)), key)
        names |= {f"wds_{form.replace('/', '-')}_test": key for form in (short, key)}
    return names


def resolved(url: str) -> str:
    """The address of a set's files: of Hugging Face's page of a data set, where the files behind it are."""
    url = url.rstrip("/")
    return url.replace("/tree/", "/resolve/", 1) if url.startswith("https://huggingface.co/datasets/") else url


def name_of(base: str) -> str:
    """Name of a set's folder."""
    return base.partition("/resolve/")[0].rsplit("/", 1)[-1] if base.startswith("https://") else base.rsplit("/", 1)[-1]
