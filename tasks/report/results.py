"""The result table: every subset trained afresh, on the test data, and how much of the possible gain it has.

One row a subset. The gap closed by a subset s on a task, with means over the seeds, is

    (s - everything) / (oracle - everything),

0 for training on everything and 1 for the oracle that knows which samples are right; there is none without an
oracle, or where the oracle is no better than everything. The held-out task chose the round, so it is no test and
stays out. Where there are several tests, their mean stands beside them.

Two things blur a figure: the seeds, whose spread is shown, and the choice of the test's n samples, which all seeds
share: its standard error does not fall with more seeds. Reads evaluations, and of counts and samples the columns that
sizes need; trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.catalog.files import read_toml
from tasks.catalog.recipe_options import NO_ROUNDS
from tasks.catalog.subset_names import filter_and_column
from tasks.evaluation.measures import metric, percent
from tasks.files.plurals import counted
from tasks.homes.working_copies import at_hand
from tasks.report.mean_of_tests import means_over_tests
from tasks.tables.published import files, read, read_parquet
from tasks.tables.run_folders import chosen_round
from tasks.tables.schemas import TRUTH, knows_truth

NOT_TESTS = {"target", "heldout"}
GAP = " gap closed"
STD = " std"
SIZE = " n"
ERROR = " standard error"
NAMES = {
    "everything": "everything",
    "random": "random, equal size",
    "loss_filter": "loss filter",
    "own_clip_filter": "own-model CLIP filter",
    "clip_filter": "own-model CLIP filter",
    "negclip_filter": "negCLIPLoss filter",
    "norm_sim_filter": "NormSim filter",
    "negclip_norm_sim_filter": "negCLIPLoss and NormSim filter",
    "domain_match_filter": "domain-match filter",
    "color_filter": "CoLoR filter",
    "gradient_filter": "gradient filter (LESS)",
    "influence_filter": "influence filter",
    "embedding_filter": "embedding filter",
    "mgd": "metagradient descent",
    "oracle": "oracle (knows the truth)",
}
"""What a person calls each subset; `clip_filter` in tables of earlier versions."""
NO_RIVALS = {"mgd", "oracle", "everything"}
"""Subsets that are no choice that anyone could have made without metagradients."""
STARTED = "starting counts (no round)"
"""What a person calls `mgd` where nothing descended."""


def result_table(home: str | Path, run: str) -> list[dict[str, Any]]:
    """One row a subset, the best first; empty before the comparison is published.

    Keys: subset, name (what a person calls it), samples (size of the training multiset), distinct, samples_seen (by
    each training), seeds (number of them), and for each test task and metric `<task> <metric>` (mean over seeds),
    `... std` (n - 1; None with one seed), `... n` (samples of the test), `... standard error` (by the choice of these;
    None: not known) and, where more is better, `... gap closed` (1: all of it; None: no oracle to compare with).
    Sizes are None where the run's tables do not tell them.
    """
    evaluations = chosen_evaluations(home, run)
    if not evaluations:
        return []
    measures = measured(evaluations, home, run)
    subsets = sorted({row["subset"] for row in evaluations})
    values = {subset: _values(evaluations, subset) for subset in subsets}
    sizes = _sizes(Path(home), run)
    names = {subset: called(subset) for subset in subsets} | ({"mgd": STARTED} if is_comparison_only(home, run) else {})
    rows = [_row(subset, names[subset], values, measures, sizes) for subset in subsets]
    first = first_measure(measures)
    name, order = " ".join(first), metric(first[1]).ascending
    return sorted(rows, key=lambda row: (np.inf if row[name] is None else order(row[name]), row["subset"]))


def called(subset: str) -> str:
    """What a person calls a subset: a rival what its catalog does."""
    name, column = filter_and_column(subset)
    return NAMES.get(name, name) + (f", by {column}" if column else "")


def first_measure(measures: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The (task, metric) that subsets are ordered by: the first of which more is better."""
    return next((m for m in measures if metric(m[1]).higher_is_better), measures[0])


def format_result_table(rows: Sequence[dict[str, Any]]) -> str:
    """The result table as plain text for a terminal: means and spreads in percent, the gap closed beside them."""
    if not rows:
        return "No comparison yet: the run has published no evaluations."
    measures = [key for key in rows[0] if key + GAP in rows[0]]
    header = ["subset", "samples", "distinct"]
    for measure in measures:
        header += [spoken(measure), "gap closed"]
    lines = [header]
    for row in rows:
        line = [row["name"], _whole(row["samples"]), _whole(row["distinct"])]
        for measure in measures:
            line += [spread(row[measure], row[measure + STD]), percent(row[measure + GAP], 0)]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    padded = [
        [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in padded) + "\n\n" + effort(rows)


def effort(rows: Sequence[dict[str, Any]]) -> str:
    """One sentence: what each training saw, with how many seeds; a warning where the subsets differ."""
    seen = sorted({row["samples_seen"] for row in rows})
    seeds = sorted({row["seeds"] for row in rows})
    shown = " or ".join(str(n) for n in seeds) + (" seed" if seeds == [1] else " seeds")
    if len(seen) == 1:
        return f"Every training saw {counted(seen[0], 'sample')}; {shown} each."
    return f"Not a fair comparison: trainings saw between {seen[0]:,} and {seen[-1]:,} samples; {shown} each."


def is_comparison_only(home: str | Path, run: str) -> bool:
    """Whether the run has no rounds: nothing descended."""
    found = files(home, run, "choices")
    return bool(found) and read(home, run, "choices", max(found))["rule"][0].as_py() == NO_ROUNDS


def chosen_evaluations(home: str | Path, run: str) -> list[dict[str, Any]]:
    """The test evaluations of the chosen round (the latest that was evaluated, if none is chosen), sorted; else []."""
    found = files(home, run, "evaluations")
    if not found:
        return []
    chosen = chosen_round(home, run)
    rows = read(home, run, "evaluations", chosen if chosen in found else max(found)).to_pylist()
    own = _catalog_tests(home, run)  # not what `mgd evaluate` added for one subset alone
    tests = [row for row in rows if (row["task"] in own if own else row["task"] not in NOT_TESTS)]
    tests += means_over_tests(tests, own)
    return sorted(tests, key=lambda row: (row["task"], row["metric"], row["subset"], row["seed"]))


def paired_differences(home: str | Path, run: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """By how much the chosen subset is ahead of each rival, by (subset, task, metric): rows of `paired_differences` of
    the round that is compared; empty in homes of earlier versions, and before the comparison has ended."""
    found, chosen = files(home, run, "paired_differences"), chosen_round(home, run)
    if chosen not in found:
        return {}
    rows = read(home, run, "paired_differences", chosen).to_pylist()
    return {(row["subset"], row["task"], row["metric"]): row for row in rows}


def ahead(row: dict[str, Any]) -> str:
    """A paired difference and its interval, in points."""
    shown = [f"{round(100 * row[key], 1) + 0.0:.1f}".replace("-", "−") for key in ("difference", "low", "high")]
    return f"{'+' if row['difference'] > 0 else ''}{shown[0]} [{shown[1]}, {shown[2]}]"


def measured(evaluations: Sequence[dict[str, Any]], home: str | Path, run: str) -> list[tuple[str, str]]:
    """(task, metric) pairs that were measured: tasks as the run's catalog orders them, else by name; what is
    better low comes last."""
    place = {task: i for i, task in enumerate(_catalog_tests(home, run))}
    found = {(row["task"], row["metric"]) for row in evaluations}
    return sorted(
        found, key=lambda pair: (place.get(pair[0], len(place)), pair[0], not metric(pair[1]).higher_is_better, pair[1])
    )


def _catalog_tests(home: str | Path, run: str) -> dict[str, Any]:
    """Test tasks of the run's catalog, in its order; none where there is no catalog."""
    targets = catalog_of(home, run).get("targets", {})
    return {**targets.get("tasks", {}), **targets.get("tests", {})}


def catalog_of(home: str | Path, run: str) -> dict[str, Any]:
    """The run's catalog as it was written; empty where there is none."""
    path = Path(home) / "runs" / run / "catalog.toml"
    return read_toml(path) if path.exists() else {}


def gap_closed(value: float | None, everything: float | None, oracle: float | None) -> float | None:
    """Share of the gap between everything and oracle that `value` closes; None where there is no gap to close."""
    if value is None or everything is None or oracle is None or oracle <= everything:
        return None
    return (value - everything) / (oracle - everything)


def spread(mean: float | None, std: float | None) -> str:
    """Mean and standard deviation of a share, in percent."""
    if mean is None or std is None:
        return percent(mean)
    return f"{100 * mean:.1f} ± {100 * std:.1f} %"


def spoken(measure: str) -> str:
    """`<task> <metric>` with the metric as a person calls it."""
    task, _, name = measure.rpartition(" ")
    return f"{task} {metric(name).words}"


def _values(evaluations: Sequence[dict[str, Any]], subset: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in evaluations:
        if row["subset"] == subset:
            found.setdefault((row["task"], row["metric"]), []).append(row)
    return found


def _row(
    subset: str,
    called: str,
    values: dict[str, dict[tuple[str, str], list[dict[str, Any]]]],
    measures: list[tuple[str, str]],
    sizes: dict[str, tuple[int, int]],
) -> dict[str, Any]:
    own = [row for rows in values[subset].values() for row in rows]
    samples, distinct = sizes.get(subset, (None, None))
    told = [row for row in own if row.get("samples") is not None]
    if told:  # of the first seed; earlier versions left it to be worked out
        samples, distinct = told[0]["samples"], told[0]["distinct_samples"]
    row: dict[str, Any] = {
        "subset": subset,
        "name": called,
        "samples": samples,
        "distinct": distinct,
        "samples_seen": max(row["samples_seen"] for row in own),
        "seeds": len({row["seed"] for row in own}),
    }
    for pair in measures:
        name = " ".join(pair)
        means = {one: _mean(values.get(one, {}).get(pair)) for one in (subset, "everything", "oracle")}
        row[name], row[name + STD] = means[subset], _std(values[subset].get(pair))
        row[name + SIZE] = max((r["n"] for r in values[subset].get(pair, ()) if r.get("n") is not None), default=None)
        row[name + ERROR] = _mean(values[subset].get(pair), "standard_error")
        if metric(pair[1]).higher_is_better:
            row[name + GAP] = gap_closed(means[subset], means["everything"], means["oracle"])
    return row


def _mean(rows: list[dict[str, Any]] | None, key: str = "value") -> float | None:
    known = [row[key] for row in rows or () if row.get(key) is not None]
    return float(np.mean(known)) if known else None


def _std(rows: list[dict[str, Any]] | None) -> float | None:
    return float(np.std([row["value"] for row in rows], ddof=1)) if rows and len(rows) > 1 else None


def _sizes(home: Path, run: str) -> dict[str, tuple[int, int]]:
    """(samples, distinct) of each subset, as the comparison makes them: rivals have the distinct size of mgd's."""
    counts, chosen = files(home, run, "counts"), chosen_round(home, run)
    sizes: dict[str, tuple[int, int]] = {}
    if chosen in counts:
        count = read(home, run, "counts", chosen)["count"].to_numpy()
        distinct = int((count > 0).sum())
        sizes = dict.fromkeys(set(NAMES) - {"oracle"}, (distinct, distinct))
        sizes |= {"everything": (len(count), len(count)), "mgd": (int(count.sum()), distinct)}
    clean = _truth(files(home, run, "samples"))
    return sizes | ({"oracle": (clean, clean)} if clean is not None else {})


def _truth(samples: dict[int, Path]) -> int | None:
    """Number of samples known to be right, or None where nobody knows."""
    path = samples.get(0)
    at_hand(*samples.values())
    if path is None or not knows_truth(pq.read_schema(path)):
        return None
    total: int | None = pc.sum(read_parquet(path, [TRUTH])[TRUTH]).as_py()
    return total


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
