"""The chosen subset beside its rivals: each is trained afresh with the plain recipe, at equal samples seen.

Rivals of the subset that metagradient descent chose (n distinct samples): everything; n random samples; the n samples
that a filter ranks first (`pair_rivals`, `text_rivals`); and, where the pool knows it, the samples that are right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from mgd_core.order import generator
from tasks.artefacts import digest, is_done, publish_json, read_json
from tasks.evaluation_records import publish_rows
from tasks.rounds import counts_of
from tasks.schemas import knows_truth
from tasks.tables import read_parquet
from tasks.trained import trained_parameters
from tasks.workbench import Counts, Workbench, opened

RANDOM_STREAM = 7  # names the generator that draws random subsets
TRUTH_COLUMN = "truth_clean"


class ComparisonError(UserError, ValueError):
    """A subset that the catalog asks for cannot be made from this pool."""


def train_subset(directory: Path, subset: str, seed: int, chosen: int) -> Path:
    """Train one subset with one seed and evaluate it on the tests; returns the path of its record."""
    with opened(directory) as bench:
        counts = subset_counts(bench, subset, seed, chosen)
        record = bench.run.work("comparison", f"{subset}-{seed}.json")
        key = bench.run.key("comparison", subset, seed, digest(counts.tolist()))
        if not is_done(record, key):
            publish_json(record, {"key": key, "rows": _train_and_test(bench, counts, subset, seed)})
        return record


def publish_evaluations(directory: Path, records: list[Path], chosen: int) -> None:
    """Publish the records of all comparison trainings as ``evaluations``."""
    with opened(directory) as bench:
        rows = [row for record in records for row in read_json(record)["rows"]]
        publish_rows(bench.run.home, bench.run.id, chosen, rows)


def subset_counts(bench: Workbench, subset: str, seed: int, chosen: int) -> Counts:
    """Counts (n,) of a subset in the comparison.

    Raises:
        ComparisonError: the oracle was asked for and the pool does not know its truth.
    """
    mgd = counts_of(bench, chosen)
    n, size = len(mgd), int((mgd > 0).sum())
    if subset == "mgd":
        return mgd
    if subset == "everything":
        return np.ones(n, np.int64)
    if subset == "oracle":
        return _truth(bench).astype(np.int64)
    if subset == "random":
        best = generator(seed, RANDOM_STREAM).permutation(n)[:size]
    else:
        best = np.argsort(bench.ranking(subset), kind="stable")[:size]
    counts = np.zeros(n, np.int64)
    counts[best] = 1
    return counts


def _truth(bench: Workbench) -> npt.NDArray[np.bool_]:
    if not knows_truth(pq.read_schema(bench.pool.samples_path), TRUTH_COLUMN):
        raise ComparisonError(
            f"comparison.subsets asks for 'oracle', but the pool has no column '{TRUTH_COLUMN}' of true and false: "
            "nobody knows which of its captions are right. Remove 'oracle' from the catalog's comparison.subsets."
        )
    column = read_parquet(bench.pool.samples_path, columns=[TRUTH_COLUMN])[TRUTH_COLUMN]
    return np.asarray(column.to_pylist(), bool)


def _train_and_test(bench: Workbench, counts: Counts, subset: str, seed: int) -> list[dict[str, Any]]:
    theta = trained_parameters(bench, counts, subset, seed, keep=subset == "mgd")
    learner, _ = bench.learner(counts, seed)
    tasks = bench.tasks(learner)
    seen = learner.steps * bench.catalog.learner.batch
    rows = []
    for name, task in (("heldout", tasks.heldout), *tasks.tests.items()):
        shared = {"subset": subset, "seed": seed, "task": name, "samples_seen": seen}
        found = task.metrics(theta)
        rows += [{**shared, "metric": metric, "value": value} for metric, value in found.items()]
    return rows
