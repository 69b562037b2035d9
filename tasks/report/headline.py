"""The report's top: the result in one paragraph, its key figures, and the comparison table with every seed as a dot.

All words are computed: they claim that descent is best only where its mean is, name the rival that beats it where one
does, and leave out what the run does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.evaluation.measures import Metric, metric, percent
from tasks.files.plurals import counted
from tasks.html.charts import ticks
from tasks.html.markup import absent, command, paragraph, section, text
from tasks.report.overfitting import parting
from tasks.report.result_words import precision, rivals_told
from tasks.report.results import (
    ERROR,
    GAP,
    NAMES,
    SIZE,
    STARTED,
    STD,
    effort,
    first_measure,
    spoken,
    spread,
)
from tasks.report.run_data import Evidence

LOSS = "loss"
"""The metric that stands in a column beside a test's other metrics."""
COMPARISON_SQL = """SELECT task, metric, subset, mean, std, seeds, n, standard_error, lowest, highest, samples,
    samples_seen FROM comparison
    ORDER BY task, metric, mean DESC"""


def headline(evidence: Evidence) -> str:
    """Title, lead paragraph and key figures."""
    catalog = evidence.record.get("catalog", {})
    title = catalog.get("description") or catalog.get("name") or evidence.run
    figures = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in _key_figures(evidence)
    )
    return (
        f'<p class="eyebrow">Curation by metagradient descent · <code>{text(evidence.run)}</code></p>\n'
        f"<h1>{text(title)}</h1>\n{paragraph(lead(evidence), 'lead')}\n<dl class=figs>{figures}</dl>"
    )


def lead(evidence: Evidence) -> str:
    """The result in words."""
    told = (_result(evidence), _versus(evidence), _truth(evidence), _progress(evidence))
    return " ".join(s for s in (*told, parting(evidence.rounds, evidence.chosen)) if s)


def comparison_section(evidence: Evidence) -> str:
    """The comparison: a table for each test task and metric but losses, which stand in a column of their own."""
    rows = evidence.results
    if not rows:
        words = "The subsets have not been compared yet: the run has published no evaluations."
        return section("result", "Comparison", absent(words))
    told = [paragraph(f"Each subset is trained afresh with the plain recipe. {effort(rows)}")]
    told += [
        paragraph(" ".join(sentences))
        for sentences in (precision(rows), rivals_told(evidence.home, evidence.run))
        if sentences
    ]
    if not any(row["subset"] == "oracle" for row in rows):
        told.append(absent("There is no oracle among the subsets, so the gap closed is not known."))
    measures = evidence.measures
    losses = {task for task, metric in measures if metric == LOSS}
    tables = [_table(evidence, task, metric, task in losses) for task, metric in measures if metric != LOSS]
    tables = tables or [_table(evidence, task, metric, False) for task, metric in measures]
    return section("result", "Comparison", *told, *tables, command(evidence.run, COMPARISON_SQL))


def _measure(evidence: Evidence) -> str:
    """The column of the result table that the headline speaks of."""
    return " ".join(first_measure(evidence.measures))


def _is_told(evidence: Evidence) -> bool:
    """Whether the chosen subset was measured by something of which more is better."""
    mgd = _by_subset(evidence).get("mgd")
    return mgd is not None and _measure(evidence) + GAP in mgd and mgd[_measure(evidence)] is not None


def _by_subset(evidence: Evidence) -> dict[str, dict[str, Any]]:
    return {row["subset"]: row for row in evidence.results}


def _result(evidence: Evidence) -> str:
    rows = _by_subset(evidence)
    if not _is_told(evidence):
        return _best(evidence) if rows else "The chosen subset has not been compared with others yet."
    mgd, measure = rows["mgd"], _measure(evidence)
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
        words += f"; that closes {percent(gap, 0)} of the gap to the oracle, which knows the right {evidence.judged}s"
    return words + "."


def _best(evidence: Evidence) -> str:
    """Where the chosen subset is not among those compared: the best that is."""
    best, measure = evidence.results[0], _measure(evidence)
    task, _, name = measure.rpartition(" ")
    if best[measure] is None or not metric(name).in_percent:
        return ""
    words = f"Of the subsets compared, {best['name']} is the best: trained on it, the recipe reaches "
    return words + f"{spread(best[measure], best[measure + STD])} {metric(name).words} on the test task “{task}”."


def _versus(evidence: Evidence) -> str:
    """How descent stands to the best subset that anyone could have made without the truth."""
    rows = _by_subset(evidence)
    if not _is_told(evidence):
        return ""
    measure = _measure(evidence)
    rivals = [r for r in rows.values() if r["subset"] not in ("mgd", "oracle", "everything") and r[measure] is not None]
    if not rivals:
        return ""
    kind = metric(measure.rpartition(" ")[2])
    best = min(rivals, key=lambda row: kind.ascending(row[measure]))
    name = "a random subset of equal size" if best["subset"] == "random" else f"the {best['name']}"
    if best["name"] == best["subset"]:
        name = f"“{best['name']}”"  # the catalog's own name
    figure = spread(best[measure], best[measure + STD])
    if kind.better(best[measure], rows["mgd"][measure]):
        return f"It is not the best: {name} reaches {figure}."
    return f"The best rival, {name}, reaches {figure}."


def _truth(evidence: Evidence) -> str:
    rows = evidence.agreement
    if not rows:
        return ""
    at = evidence.chosen if evidence.chosen is not None else rows[-1]["round"]
    now = next((row for row in rows if row["round"] == at), rows[-1])
    if now["precision"] is None or now["recall"] is None:
        return ""
    before, after, found = (percent(x, 0) for x in (rows[0]["precision"], now["precision"], now["recall"]))
    return (
        f"Of the pool's {evidence.judged}s {before} are right, of those kept {after}; {found} of the right ones "
        "were kept, though the curation never saw which they are."
    )


def _progress(evidence: Evidence) -> str:
    """What the rounds tell before there is a comparison."""
    rows = evidence.rounds
    if evidence.results or not rows:
        return ""
    first, last = rows[0], next((r for r in rows if r["round"] == evidence.chosen), rows[-1])
    if first is last:
        return f"One round has finished, with a held-out accuracy of {percent(first['heldout_accuracy'])}."
    return (
        f"Held-out accuracy went from {percent(first['heldout_accuracy'])} in round {first['round']} to "
        f"{percent(last['heldout_accuracy'])} in round {last['round']}."
    )


def _key_figures(evidence: Evidence) -> list[tuple[str, str]]:
    rows, figures = _by_subset(evidence), []
    if _is_told(evidence):
        measure = _measure(evidence)
        figures.append((f"{spoken(measure)}, chosen subset", percent(rows["mgd"][measure])))
        if "everything" in rows:
            figures.append((f"{spoken(measure)}, everything", percent(rows["everything"][measure])))
        if rows["mgd"][measure + GAP] is not None:
            figures.append(("gap to the oracle closed", percent(rows["mgd"][measure + GAP], 0)))
    if evidence.chosen is not None and evidence.rounds:
        figures.append(
            ("chosen round", f"{evidence.chosen} of {max([evidence.chosen, *(r['round'] for r in evidence.rounds)])}")
        )
    at = next((row for row in evidence.rounds if row["round"] == evidence.chosen), None)
    if at:
        figures.append(("distinct samples kept", f"{at['distinct_samples']:,}"))
    return figures


def _table(evidence: Evidence, task: str, name: str, losses: bool) -> str:
    """One task's table, best first, with the seeds on a common axis."""
    measure = f"{task} {name}"
    own = [row for row in evidence.evaluations if (row["task"], row["metric"]) == (task, name)]
    rows = [row for row in evidence.results if row[measure] is not None]
    kind = metric(name)
    rows.sort(key=lambda row: (kind.ascending(row[measure]), row["subset"]))
    values = [row["value"] for row in own]
    marks = ticks(min(values), max(values), 4)
    low, high = min(marks[0], *values), max(marks[-1], *values)
    gaps = any(row.get(measure + GAP) is not None for row in rows)
    header = ["subset", "samples", "distinct", kind.words, *(["gap closed"] if gaps else [])]
    head = _cells("th", header) + "<th class=strip>each seed, and the mean</th>"
    head += '<th class="num loss">loss</th>' if losses else ""
    body = []
    for row in rows:
        seeds = [(r["seed"], r["value"]) for r in own if r["subset"] == row["subset"]]
        made = _cells("td", _figures(row, measure, gaps))
        made += f"<td class=strip>{_strip(seeds, row[measure], low, high, kind)}</td>"
        made += f'<td class="num loss">{_loss(row.get(f"{task} {LOSS}"))}</td>' if losses else ""
        body.append(f'<tr class="{row["subset"] if row["subset"] in NAMES else ""}">{made}</tr>')
    axis = "".join(f'<i style="left:{_at(m, low, high)}">{text(_show(m, kind))}</i>' for m in marks)
    foot = f"<td colspan={len(header)}></td><td class=strip><span class=axis>{axis}</span></td>"
    foot += "<td class=loss></td>" if losses else ""
    return (
        f"<h3>Test task “{text(task)}”</h3>\n<div class=wide><table class=result><thead><tr>{head}</tr></thead>"
        f"<tbody>\n{chr(10).join(body)}\n</tbody><tfoot><tr>{foot}</tr></tfoot></table></div>"
    )


def _figures(row: dict[str, Any], measure: str, gaps: bool) -> list[str]:
    shown = spread(row[measure], row[measure + STD]) if measure + GAP in row else _loss(row[measure])
    cells = [row["name"], _whole(row["samples"]), _whole(row["distinct"]), shown]
    return [*cells, percent(row.get(measure + GAP), 0)] if gaps else cells


def _cells(tag: str, cells: Sequence[str]) -> str:
    styles = ("name", "num size", "num size", "num value", "num")
    return "".join(f'<{tag} class="{style}">{text(cell)}</{tag}>' for style, cell in zip(styles, cells, strict=False))


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _strip(seeds: Sequence[tuple[int, float]], mean: float, low: float, high: float, kind: Metric) -> str:
    dots = "".join(
        f'<i class=dot style="left:{_at(value, low, high)}" title="seed {seed}: {_show(value, kind, 1)}"></i>'
        for seed, value in seeds
    )
    return f'<span class=plot>{dots}<i class=mean style="left:{_at(mean, low, high)}"></i></span>'


def _at(value: float, low: float, high: float) -> str:
    return f"{100 * (value - low) / ((high - low) or 1):.2f}%"


def _show(value: float, kind: Metric, digits: int = 0) -> str:
    return percent(value, digits) if kind.in_percent else f"{value:.2f}"


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
