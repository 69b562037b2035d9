"""The report's section on the metagradients: how g lies about 0, and how well it and the counts know the truth.

The histogram is made in SQL, by the query that the page shows, so that only its bins are read however large the pool.
Bins are equal and 0 lies between two of them; the outermost hold all beyond the 99th percentile of |g|.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.evaluation.measures import percent
from tasks.html.charts import Series, histogram, keys, line_chart
from tasks.html.pages import Figure
from tasks.report.run_data import RunData

BINS = 24  # on each side of 0
SURE_SQL = "SELECT share_helps, share_harms FROM beliefs_summary ORDER BY round DESC LIMIT 1"
AGREEMENT_SQL = "SELECT round, precision, weighted_precision, recall, auc, auc_sum FROM truth_agreement"


def metagradients(data: RunData) -> dict[str, Any]:
    """Histograms of g with the decision line, and agreement with the truth by round."""
    numbers = [row["round"] for row in data.ask("SELECT DISTINCT round FROM metagradients ORDER BY round")]
    wanted = {*numbers[-1:], *([data.chosen - 1] if data.chosen else [])}
    shown = [_histogram(data, number) for number in sorted(wanted & set(numbers))]
    shown = shown or ["No round has metagradients yet."]
    return {"rule": _rule(data.descent) + _sure(data), "figures": [*shown, *_truth_figures(data)]}


def _rule(descent: dict[str, Any]) -> str:
    """What the update makes of g, from the catalog."""
    summed = " Here it acts on the sum over the rounds." if descent.get("momentum") or descent.get("memory") else ""
    by = [", ".join(descent.get("groups") or ()), "a model of other samples" if descent.get("learned") else ""]
    if any(by):
        alone = " alone" if descent.get("whole_groups") else ""
        summed = f" Here it acts on what g is taken for by {' and '.join(filter(None, by))}{alone}."
    p = descent.get("p", 1)
    moved = f"the {percent(p, 0)} of the pool that a round moves" if p < 1 else "all samples"
    if descent.get("rule") == "sign":
        return f"The sign decides: of {moved}, it raises the counts left of 0 and lowers those right of it.{summed}"
    if descent.get("rule") == "exchange":
        share = percent(descent.get("share"), 0)
        return (
            f"The rank decides: of {moved}, the {share} with the lowest g are raised and the {share} with the highest "
            f"lowered.{summed}"
        )
    if descent.get("rule") == "confident":
        return (
            f"Of {moved}, copies pass from those that are surely higher to those that are surely lower: whose "
            f"intervals of +-{descent.get('z', 1):g} standard deviations do not meet.{summed}"
        )
    return "The line at 0 parts what the sign rule raises from what it lowers."


def _sure(data: RunData) -> str:
    """Of how many samples the last round is sure; nothing where an earlier version left no beliefs."""
    rows = data.ask(SURE_SQL)
    if not rows:
        return ""
    helps, harms = (percent(rows[0][name], 1) for name in ("share_helps", "share_harms"))
    return (
        " After the last round, with what rounds, groups and other samples say of each taken together (table "
        f"beliefs), {helps} of the samples help with a probability above 97.5 %, and {harms} do not."
    )


def _histogram(data: RunData, number: int) -> Figure | str:
    title = f"g in round {number}"
    source = f"FROM metagradients WHERE probed AND round = {number}"
    span = data.ask(f"SELECT quantile_cont(abs(g), 0.99) AS span {source}")[0]["span"]
    if not span:
        return f"{title}: no sample was probed, or every g is 0."
    # In scientific notation DuckDB reads a double; 4 digits keep the command line short.
    width = f"{span / BINS:.3e}"
    truth = "truth_clean" if data.knows_truth else "NULL::BOOLEAN"
    sql = (
        f"SELECT {truth} AS clean, greatest(-{BINS}, least({BINS - 1}, floor(g / {width})))::INTEGER AS bin, "
        "count(*) AS samples FROM metagradients JOIN samples USING (run, uid) "
        f"WHERE probed AND metagradients.round = {number} GROUP BY ALL ORDER BY ALL"
    )
    rows = data.ask(sql)
    what = data.judged
    kinds = [(True, f"{what} right", "clean"), (False, f"{what} wrong", "swapped"), (None, "samples", "plain")]
    series = [
        (name, style, {r["bin"]: r["samples"] for r in rows if r["clean"] is kind}) for kind, name, style in kinds
    ]
    series = [one for one in series if one[2]]
    named = keys([(name, style) for name, style, _ in series if style != "plain"])
    picture = named + histogram(title, float(width), series, "g")
    return Figure(title, picture, _histogram_words(data, number, rows), sql)


def _histogram_words(data: RunData, number: int, rows: Sequence[dict[str, Any]]) -> str:
    total = sum(row["samples"] for row in rows)
    wanted = sum(row["samples"] for row in rows if row["bin"] < 0)
    words = f"{total:,} samples probed; g is below 0 for {percent(wanted / total, 0)}"
    for clean, name in ((True, "of right captions"), (False, "of wrong ones")):
        own = [row for row in rows if row["clean"] is clean]
        if own:
            share = sum(row["samples"] for row in own if row["bin"] < 0) / sum(row["samples"] for row in own)
            words += f", {name} for {percent(share, 0)}"
    # The counts that were chosen come from the g of the round before.
    here = " Its step made the chosen counts." if data.chosen == number + 1 else ""
    return words + "." + here + " The outermost bars hold all beyond."


def _truth_figures(data: RunData) -> list[Figure | str]:
    """Precision and recall of the kept, and how well g tells right from wrong captions, by round."""
    rows, what = data.agreement, data.judged
    if not rows:
        return [f"The pool does not tell which {what}s are right, so precision and recall cannot be measured."]
    numbers = [row["round"] for row in rows]
    shares = [("precision", "clean"), ("recall", "recall")]
    series = [Series(name, style, [row[name] for row in rows]) for name, style in shares]
    title = "What is kept against the truth"
    chart = line_chart(title, numbers, series, lambda v: percent(v, 0), data.chosen)
    words = f"Precision: share of the kept whose {what} is right. Recall: share of the right ones that are kept."
    made: list[Figure | str] = [Figure(title, chart, words, AGREEMENT_SQL)]
    scored = [row for row in rows if row["auc"] is not None]
    if scored:
        areas = [Series("one round", "target", [row["auc"] for row in scored])]
        areas.append(Series("summed", "heldout", [row["auc_sum"] for row in scored]))
        title = "How well g tells right from wrong"
        chart = line_chart(title, [row["round"] for row in scored], areas, lambda v: f"{v:.2f}", None)
        words = f"AUC: chance that a right {what} has a lower g than a wrong one; 0.5 knows nothing."
        made.append(Figure(title, chart, words, AGREEMENT_SQL))
    return made
