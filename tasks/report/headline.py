"""The report's top: the result in one paragraph, its key figures, and the comparison table with every seed as a dot.

All words are computed: they claim that descent is best only where its mean is, name the rival that beats it where one
does, and leave out what the run does not know.
"""

from __future__ import annotations

from typing import Any

from tasks.evaluation.measures import Metric, metric, percent
from tasks.files.plurals import counted
from tasks.html.charts import ticks
from tasks.report.overfitting import parting
from tasks.report.result_words import baselines_told, precision
from tasks.report.results import (
    ERROR,
    GAP,
    NAMES,
    NO_RIVALS,
    SIZE,
    STARTED,
    STD,
    ahead,
    effort,
    first_measure,
    spoken,
    spread,
)
from tasks.report.run_data import RunData

LOSS = "loss"
"""The metric that stands in a column beside a test's other metrics."""
AHEAD = "mgd ahead by"
DIFFERENCE = (
    f"{AHEAD}: accuracy of the chosen subset less that of the row, on the same samples and seeds, in points, with "
    "95 % intervals over both (table paired_differences)."
)
COMPARISON_SQL = """SELECT task, metric, subset, mean, std, seeds, n, standard_error, lowest, highest, samples,
    samples_seen FROM comparison
    ORDER BY task, metric, mean DESC"""


def headline(data: RunData) -> tuple[str, str, list[tuple[str, str]]]:
    """Title, lead paragraph and key figures."""
    catalog = data.record.get("catalog", {})
    title = catalog.get("description") or catalog.get("name") or data.run
    return title, lead(data), _key_figures(data)


def lead(data: RunData) -> str:
    """The result in words."""
    told = (_result(data), _versus(data), _truth(data), _progress(data))
    return " ".join(s for s in (*told, parting(data.rounds, data.chosen)) if s)


def comparison(data: RunData) -> dict[str, Any]:
    """The comparison: a table for each test task and metric but losses, which stand in a column of their own."""
    rows, measures = data.results, data.measures
    if not rows:
        return {}
    losses = {task for task, metric in measures if metric == LOSS}
    tables = [_table(data, task, metric, task in losses) for task, metric in measures if metric != LOSS]
    return {
        "effort": effort(rows),
        "told": (precision(rows), [DIFFERENCE] if data.differences else [], baselines_told(data.home, data.run)),
        "has_oracle": any(row["subset"] == "oracle" for row in rows),
        "tables": tables or [_table(data, task, metric, False) for task, metric in measures],
        "sql": COMPARISON_SQL,
    }


def _measure(data: RunData) -> str:
    """The column of the result table that the headline speaks of."""
    return " ".join(first_measure(data.measures))


def _is_told(data: RunData) -> bool:
    """Whether the chosen subset was measured by something of which more is better."""
    mgd = _by_subset(data).get("mgd")
    return mgd is not None and _measure(data) + GAP in mgd and mgd[_measure(data)] is not None


def _by_subset(data: RunData) -> dict[str, dict[str, Any]]:
    return {row["subset"]: row for row in data.results}


def _result(data: RunData) -> str:
    rows = _by_subset(data)
    if not _is_told(data):
        return _best(data) if rows else "The chosen subset has not been compared with others yet."
    mgd, measure = rows["mgd"], _measure(data)
    of = ""
    if mgd["distinct"] is not None:
        of = f" the {mgd['distinct']:,} of {rows.get('everything', mgd)['distinct']:,} samples"
    task, _, name = measure.rpartition(" ")
    kind = metric(name).words
    over = f"mean ± standard deviation of {mgd['seeds']} seeds" if mgd["seeds"] > 1 else "one seed"
    if mgd.get(measure + SIZE) and mgd.get(measure + ERROR) is not None:
        over += (
            f"; {counted(mgd[measure + SIZE], 'test sample')}, standard error {100 * mgd[measure + ERROR]:.1f} points"
        )
    over = f" ({over})"
    words = f"Trained on{of or ' what'} that metagradient descent chose, the recipe reaches "
    if mgd["name"] == STARTED:
        words = f"Nothing descended (no round). Trained on{of or ' what'} that it starts with, the recipe reaches "
    words += f"{spread(mgd[measure], mgd[measure + STD])} {kind} on the test task “{task}”{over}"
    if "everything" in rows:
        everything = rows["everything"]
        words += f", against {spread(everything[measure], everything[measure + STD])} on everything"
    gap = mgd.get(measure + GAP)
    if gap is not None and gap < 0:
        words += "; that is worse than no curation"
    elif gap is not None:
        words += f"; that closes {percent(gap, 0)} of the gap to the oracle, which knows the right {data.judged}s"
    return words + "."


def _best(data: RunData) -> str:
    """Where the chosen subset is not among those compared: the best that is."""
    best, measure = data.results[0], _measure(data)
    task, _, name = measure.rpartition(" ")
    if best[measure] is None or not metric(name).in_percent:
        return ""
    words = f"Of the subsets compared, {best['name']} is the best: trained on it, the recipe reaches "
    return words + f"{spread(best[measure], best[measure + STD])} {metric(name).words} on the test task “{task}”."


def _versus(data: RunData) -> str:
    """How descent stands to the best subset that anyone could have made without the truth."""
    rows = _by_subset(data)
    if not _is_told(data):
        return ""
    measure = _measure(data)
    others = [r for r in rows.values() if r["subset"] not in NO_RIVALS and r[measure] is not None]
    if not others:
        return ""
    kind = metric(measure.rpartition(" ")[2])
    best = min(others, key=lambda row: kind.ascending(row[measure]))
    name = "a random subset of equal size" if best["subset"] == "random" else f"the {best['name']}"
    if best["name"] == best["subset"]:
        name = f"“{best['name']}”"  # the catalog's own name
    figure = spread(best[measure], best[measure + STD])
    row = data.differences.get((best["subset"], *first_measure(data.measures)))
    sure = f"; the chosen subset less that: {ahead(row)} points" if row else ""
    if kind.better(best[measure], rows["mgd"][measure]):
        return f"It is not the best: {name} reaches {figure}{sure}."
    return f"The best rival, {name}, reaches {figure}{sure}."


def _truth(data: RunData) -> str:
    rows = data.agreement
    if not rows:
        return ""
    at = data.chosen if data.chosen is not None else rows[-1]["round"]
    now = next((row for row in rows if row["round"] == at), rows[-1])
    if now["precision"] is None or now["recall"] is None:
        return ""
    before, after, found = (percent(x, 0) for x in (rows[0]["precision"], now["precision"], now["recall"]))
    return (
        f"Of the pool's {data.judged}s {before} are right, of those kept {after}; {found} of the right ones "
        "were kept, though the curation never saw which they are."
    )


def _progress(data: RunData) -> str:
    """What the rounds tell before there is a comparison."""
    rows = data.rounds
    if data.results or not rows:
        return ""
    first, last = rows[0], next((r for r in rows if r["round"] == data.chosen), rows[-1])
    if first is last:
        return f"One round has finished, with a held-out accuracy of {percent(first['heldout_accuracy'])}."
    return (
        f"Held-out accuracy went from {percent(first['heldout_accuracy'])} in round {first['round']} to "
        f"{percent(last['heldout_accuracy'])} in round {last['round']}."
    )


def _key_figures(data: RunData) -> list[tuple[str, str]]:
    rows, figures = _by_subset(data), []
    if _is_told(data):
        measure = _measure(data)
        figures.append((f"{spoken(measure)}, chosen subset", percent(rows["mgd"][measure])))
        if "everything" in rows:
            figures.append((f"{spoken(measure)}, everything", percent(rows["everything"][measure])))
        if rows["mgd"][measure + GAP] is not None:
            figures.append(("gap to the oracle closed", percent(rows["mgd"][measure + GAP], 0)))
    if data.chosen is not None and data.rounds:
        figures.append(("chosen round", f"{data.chosen} of {max([data.chosen, *(r['round'] for r in data.rounds)])}"))
    at = next((row for row in data.rounds if row["round"] == data.chosen), None)
    if at:
        figures.append(("distinct samples kept", f"{at['distinct_samples']:,}"))
    return figures


def _table(data: RunData, task: str, name: str, has_losses: bool) -> dict[str, Any]:
    """One task's table, best first, with the seeds on a common axis."""
    measure, kind = f"{task} {name}", metric(name)
    own = [row for row in data.evaluations if (row["task"], row["metric"]) == (task, name)]
    rows = [row for row in data.results if row[measure] is not None]
    rows.sort(key=lambda row: (kind.ascending(row[measure]), row["subset"]))
    values = [row["value"] for row in own]
    marks = ticks(min(values), max(values), 4)
    low, high = min(marks[0], *values), max(marks[-1], *values)
    gaps = any(row.get(measure + GAP) is not None for row in rows)
    ahead_by = [AHEAD] if any(key[1:] == (task, name) for key in data.differences) else []

    def at(value: float) -> str:
        return f"{100 * (value - low) / ((high - low) or 1):.2f}%"

    def told(row: dict[str, Any]) -> dict[str, Any]:
        seeds = [(r["seed"], r["value"]) for r in own if r["subset"] == row["subset"]]
        return {
            "style": row["subset"] if row["subset"] in NAMES else "",
            "cells": [*_figures(row, measure, gaps), *(_ahead_by(data, row, task, name) for _ in ahead_by)],
            "seeds": [(at(value), f"seed {seed}: {_show(value, kind, 1)}") for seed, value in seeds],
            "mean": at(row[measure]),
            "loss": _loss(row.get(f"{task} {LOSS}")),
        }

    return {
        "task": task,
        "header": ["subset", "samples", "distinct", kind.words, *(["gap closed"] if gaps else []), *ahead_by],
        "rows": [told(row) for row in rows],
        "axis": [(at(mark), _show(mark, kind)) for mark in marks],
        "has_losses": has_losses,
    }


def _figures(row: dict[str, Any], measure: str, gaps: bool) -> list[str]:
    shown = spread(row[measure], row[measure + STD]) if measure + GAP in row else _loss(row[measure])
    cells = [row["name"], _whole(row["samples"]), _whole(row["distinct"]), shown]
    return [*cells, percent(row.get(measure + GAP), 0)] if gaps else cells


def _ahead_by(data: RunData, row: dict[str, Any], task: str, name: str) -> str:
    found = data.differences.get((row["subset"], task, name))
    return ahead(found) if found else ""


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _show(value: float, kind: Metric, digits: int = 0) -> str:
    return percent(value, digits) if kind.in_percent else f"{value:.2f}"


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
