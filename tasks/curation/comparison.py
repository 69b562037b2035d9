"""The chosen subset beside its rivals: each is trained afresh with the plain recipe, at equal samples seen.

Rivals of the subset that metagradient descent chose (n distinct samples): everything; n random samples; the n samples
that a filter ranks first (the baselines of the kind of data), by itself or by groups (`ranking`); where the pool knows
it, the samples that are right; and what the catalog names by an expression (`expression_baselines`), of whatever size
that is.

Trainings crop their pictures where the rounds do (`[augmentation]`), filters and tests never. A training is a function
of recipe, pool, counts and seed: subsets of equal counts share one, and it is found done whatever else the comparison
holds now. So is its test, as long as the tests are what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from mgd_core.training.order import generator
from mgd_core.training.streams import RANDOM_SUBSETS
from tasks.catalog.catalogs import BaseCatalog
from tasks.catalog.subset_names import RENAMED, check_subset, file_name, filter_and_column
from tasks.curation.counts_digest import counts_digest
from tasks.curation.expression_baselines import baseline_counts
from tasks.curation.ranking import ranked
from tasks.curation.rounds import counts_of
from tasks.curation.trained import trained_parameters
from tasks.evaluation.evaluation_records import replace_rows
from tasks.evaluation.measures import accuracy_of, metric
from tasks.evaluation.paired_differences import publish_answers, spelt
from tasks.files.artefacts import is_done, publish_json, read_json
from tasks.modality.recipe import Counts, PoolRecipe
from tasks.modality.registry import modality_of, open_recipe
from tasks.runs.run import Run
from tasks.tables.published import read_parquet
from tasks.tables.schemas import knows_truth

TRUTH_COLUMN = "truth_clean"


class ComparisonError(UserError, ValueError):
    """A subset that the catalog asks for cannot be made from this pool."""


def known_subset(catalog: BaseCatalog, subset: str) -> None:
    """Raises ComparisonError where ``subset`` is none that this catalog's run can make."""
    trials = catalog.comparison
    if subset in trials.rivals or not trials.built_in:
        return
    if subset in RENAMED:
        raise ComparisonError(f"catalog '{catalog.name}' has no subset '{subset}'; it is now '{RENAMED[subset]}'")
    try:
        check_subset(subset, trials.built_in)
    except ValueError as error:
        rivals = f"; its rivals are {', '.join(trials.rivals)}" if trials.rivals else ""
        raise ComparisonError(f"catalog '{catalog.name}': {error}{rivals}") from None


def needs_round_0(catalog: BaseCatalog) -> bool:
    """Whether a subset of the comparison is picked by the model that round 0 trains."""
    baselines = modality_of(catalog).baselines
    named = [filter_and_column(subset)[0] for subset in catalog.comparison.subsets]
    return any(name in baselines and baselines[name].of_round_0 for name in named)


def train_subset(directory: Path, subset: str, seed: int, chosen: int) -> Path:
    """Train one subset with one seed and evaluate it on the tests; returns the path of its record."""
    with open_recipe(directory) as recipe:
        counts = subset_counts(recipe, subset, seed, chosen)
        content = counts_digest(counts)
        done = recipe.run.work("comparison", f"{content[:16]}-{seed}.json")
        key = recipe.run.key("comparison", seed, content, recipe.run.record["tests"])
        if not is_done(done, key):
            publish_json(done, {"key": key, "tests": _train_and_test(recipe, counts, subset, seed)})
        record = recipe.run.work("comparison", f"{file_name(subset)}-{seed}.json")
        tests = read_json(done)["tests"]
        rows, answers = _rows(recipe, tests, subset, seed, counts), _answers(recipe, tests, subset, seed)
        publish_json(record, {"subset": subset, "seed": seed, "counts": content, "rows": rows, "answers": answers})
        return record


def publish_evaluations(directory: Path, records: Sequence[Path], chosen: int) -> None:
    """Publish the records of the comparison trainings that have ended as ``evaluations``, in place of what an earlier
    comparison left there. Opens no recipe: others train meanwhile."""
    run = Run.load(directory)
    found = [read_json(record) for record in dict.fromkeys(records)]
    rows = [row for one in found for row in one["rows"]]
    state = run.work("comparison-published.json")
    before = read_json(state) if state.exists() else {"tasks": [], "counts": {}}
    counts = {f"{one['subset']}-{one['seed']}": one["counts"] for one in found}
    changed = {name for name, content in counts.items() if before["counts"].get(name, content) != content}
    tasks = sorted({*before["tasks"], "heldout", *run.catalog.tests})
    publish_json(state, {"tasks": tasks, "counts": before["counts"] | counts})

    def stale(row: dict[str, Any]) -> bool:
        return row["task"] in tasks or f"{row['subset']}-{row['seed']}" in changed

    replace_rows(run.home, run.id, chosen, rows, stale)


def publish_differences(directory: Path, records: Sequence[Path], chosen: int) -> None:
    """Publish which test samples every training of the comparison had right, and how far the chosen subset is ahead,
    once all have ended."""
    run = Run.load(directory)
    # Records of earlier versions have no answers.
    rows = [row for record in dict.fromkeys(records) for row in read_json(record).get("answers", [])]
    publish_answers(run.home, run.id, chosen, rows)


def subset_counts(recipe: PoolRecipe, subset: str, seed: int, chosen: int) -> Counts:
    """Counts (n,) of a subset in the comparison.

    Raises:
        ComparisonError: the oracle was asked for and the pool does not know its truth.
        PooledError: scores are to be averaged by a column that the pool has not, or that tells no groups.
    """
    if subset in recipe.catalog.comparison.rivals:
        return baseline_counts(recipe, subset)
    mgd = counts_of(recipe, chosen)
    n, size = len(mgd), int((mgd > 0).sum())
    if subset == "mgd":
        return mgd
    if subset == "everything":
        return np.ones(n, np.int64)
    if subset == "oracle":
        return _truth(recipe).astype(np.int64)
    if subset == "random":
        best = generator(seed, RANDOM_SUBSETS).permutation(n)[:size]
    else:
        best = ranked(recipe, subset)[:size]
    counts = np.zeros(n, np.int64)
    counts[best] = 1
    return counts


def _truth(recipe: PoolRecipe) -> npt.NDArray[np.bool_]:
    if not knows_truth(pq.read_schema(recipe.pool.samples_path), TRUTH_COLUMN):
        raise ComparisonError(
            f"comparison.subsets asks for 'oracle', but the pool has no column '{TRUTH_COLUMN}' of true and false: "
            "nobody knows which of its captions are right. Remove 'oracle' from the catalog's comparison.subsets."
        )
    column = read_parquet(recipe.pool.samples_path, columns=[TRUTH_COLUMN])[TRUTH_COLUMN]
    return pc.fill_null(column, False).to_numpy()


def _train_and_test(recipe: PoolRecipe, counts: Counts, subset: str, seed: int) -> dict[str, dict[str, Any]]:
    """By test: its samples ``n``, what was measured by metric, and the answers one by one."""
    theta = trained_parameters(recipe, counts, subset, seed, keep=subset == "mgd")
    learner, _ = recipe.learner(counts, seed)
    tasks = recipe.targets(learner)
    tested = {"heldout": tasks.heldout, **tasks.tests}
    return {
        name: {"n": task.size, "metrics": task.metrics(theta), "correct": spelt(task.correct(theta).tolist())}
        for name, task in tested.items()
    }


def _rows(
    recipe: PoolRecipe, tests: dict[str, dict[str, Any]], subset: str, seed: int, counts: Counts
) -> list[dict[str, Any]]:
    """Rows of the evaluations table."""
    options = recipe.catalog.learner
    shared = {"subset": subset, "seed": seed, "samples_seen": options.steps * options.batch}
    shared |= {"samples": int(counts.sum()), "distinct_samples": int((counts > 0).sum())}
    return [
        {**shared, "task": task, "metric": name, "value": value, "n": found["n"]}
        | {"standard_error": metric(name).standard_error(value, found["n"])}
        for task, found in tests.items()
        for name, value in found["metrics"].items()
    ]


def _answers(recipe: PoolRecipe, tests: dict[str, dict[str, Any]], subset: str, seed: int) -> list[dict[str, Any]]:
    """Rows of the answers table: of the catalog's tests, as the held-out target chose the round."""
    return [
        {"subset": subset, "seed": seed, "task": task, "metric": accuracy_of(tests[task]["metrics"])}
        | {"n": tests[task]["n"], "correct": tests[task]["correct"]}
        for task in recipe.catalog.tests
        if "correct" in tests[task]
    ]
