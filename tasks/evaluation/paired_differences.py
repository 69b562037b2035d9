"""Which samples of a test every training had right, and by how much the chosen subset beats each rival on the same
ones: tables `answers` and `paired_differences`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.evaluation.paired_bootstrap import Right, interval, resampled
from tasks.tables.published import publish
from tasks.tables.schemas import TABLES

OURS = "mgd"


def spelt(right: Iterable[bool]) -> str:
    """Answers as a text: 1 for a right one, 0 for a wrong one."""
    return "".join("1" if one else "0" for one in right)


def publish_answers(home: Path, run: str, round: int, rows: Sequence[dict[str, Any]]) -> None:
    """Publish the answers of a round's trainings, rows of `answers`, and how the chosen subset stands to the others."""
    rows = sorted(rows, key=lambda row: (row["subset"], row["seed"], row["task"]))
    publish(home, run, "answers", round, pa.Table.from_pylist(rows, TABLES["answers"]))
    found = [row for key, right in by_task(rows).items() for row in _differences(key, right)]
    found.sort(key=lambda row: (row["task"], row["subset"]))
    publish(home, run, "paired_differences", round, pa.Table.from_pylist(found, TABLES["paired_differences"]))


def by_task(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Right]]:
    """Answers (seeds, n) of each subset, seeds ascending, by (task, metric): by the seeds that all subsets of the task
    were trained with."""
    found: dict[tuple[str, str], dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["task"], row["metric"]][row["subset"]][row["seed"]] = row["correct"]
    return {key: stacked for key, subsets in found.items() if (stacked := _stacked(subsets))}


def _stacked(subsets: Mapping[str, Mapping[int, str]]) -> dict[str, Right]:
    shared = sorted(set.intersection(*(set(by_seed) for by_seed in subsets.values())))
    return {
        subset: np.stack([np.frombuffer(by_seed[seed].encode(), np.uint8) == ord("1") for seed in shared])
        for subset, by_seed in sorted(subsets.items())
        if shared
    }


def _differences(key: tuple[str, str], right: Mapping[str, Right]) -> list[dict[str, Any]]:
    """Rows of `paired_differences` of a task; none where the chosen subset is not compared."""
    if OURS not in right:
        return []
    means, (seeds, n) = resampled(right), right[OURS].shape
    rows = []
    for subset in right.keys() - {OURS}:
        difference, low, high = interval(means[OURS] - means[subset])
        shared = {"subset": subset, "task": key[0], "metric": key[1], "seeds": seeds, "n": n}
        rows.append({**shared, "difference": difference, "low": low, "high": high})
    return rows
