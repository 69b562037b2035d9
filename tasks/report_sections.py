"""The report's sections on the descent: losses by round, metagradients, counts, seconds, and the pictures.

Each section turns evidence into markup and says what is missing instead of leaving a gap. The numbers in the text are
those of the charts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.charts import Series, bars, histogram, line_chart, stacked_columns, two_way_columns
from tasks.contact_sheets import SHEETS, Sheet, contact_sheet
from tasks.evidence import Evidence
from tasks.markup import absent, data_table, figure, figures, folded, paragraph, section
from tasks.results import percent

BINS = 24  # on each side of 0
ROUNDS_SQL = (
    "SELECT round, chosen, target_loss, heldout_loss, target_accuracy, heldout_accuracy FROM rounds_summary"
)
AGREEMENT_SQL = "SELECT round, precision, weighted_precision, recall, auc, auc_sum FROM truth_agreement"
COUNTS_SQL = """SELECT round, avg((count = 0)::INTEGER) AS dropped, avg((count = 1)::INTEGER) AS once,
    avg((count = 2)::INTEGER) AS twice, avg((count > 2)::INTEGER) AS more FROM counts GROUP BY round ORDER BY round"""
MOVES_SQL = "SELECT round, raised, lowered FROM rounds ORDER BY round"
SECONDS_SQL = "SELECT phase, sum(seconds) AS seconds FROM timings GROUP BY phase ORDER BY seconds DESC, phase"


def rounds_section(evidence: Evidence) -> str:
    """Loss and accuracy by round, and every figure of the rounds table to open."""
    rows = evidence.rounds
    if not rows:
        return section("rounds", "Round by round", absent("No round has finished yet."))
    numbers = [row["round"] for row in rows]

    def chart(title: str, what: str, show: Any) -> str:
        series = [
            Series("target", "target", [row[f"target_{what}"] for row in rows]),
            Series("held-out", "heldout", [row[f"heldout_{what}"] for row in rows]),
        ]
        return figure(title, line_chart(title, numbers, series, show, evidence.chosen))

    shown = figures(
        chart("Zero-shot loss, nats", "loss", lambda v: f"{v:.3g}"),
        chart("Zero-shot accuracy", "accuracy", lambda v: percent(v, 0)),
    )
    words = (
        "Each round trains afresh on its counts. The descent lowers the target loss; the held-out target, which it "
        f"never differentiates, chooses the round.{_choice(evidence)}"
    )
    alone = "The run has a single round, so there is nothing to compare it with." if len(rows) == 1 else ""
    table = folded("Every figure of the rounds", _rounds_table(rows))
    asked = figure("", "", sql=ROUNDS_SQL, run=evidence.run).replace("<h3></h3>", "")
    return section("rounds", "Round by round", paragraph(words), paragraph(alone) if alone else "", shown, table, asked)


def metagradients_section(evidence: Evidence) -> str:
    """Histograms of g with the decision line, and agreement with the truth by round."""
    numbers = [row["round"] for row in evidence.ask("SELECT DISTINCT round FROM metagradients ORDER BY round")]
    shown = []
    if numbers:
        wanted = {numbers[-1]} | ({evidence.chosen - 1} if evidence.chosen else set())
        shown = [_histogram(evidence, number) for number in sorted(wanted & set(numbers))]
    else:
        shown.append(absent("No round has metagradients yet."))
    words = (
        "The metagradient g of a sample is the derivative of the target loss with respect to its weight in training: "
        f"negative where more of it would lower the loss. {_rule(evidence.descent)}"
    )
    return section("metagradients", "What the target wants", paragraph(words), figures(*shown, *_truth_figures(evidence)))


def counts_section(evidence: Evidence) -> str:
    """Shares of samples by count over the rounds, and how many each round raised and lowered."""
    shares = evidence.ask(COUNTS_SQL)
    if not shares:
        return section("counts", "Counts", absent("No counts are published yet."))
    names = [("dropped", "×0 dropped", "c0"), ("once", "×1", "c1"), ("twice", "×2", "c2"), ("more", "×3 or more", "c3")]
    series = [Series(name, style, [row[key] for row in shares]) for key, name, style in names]
    numbers = [row["round"] for row in shares]
    title = "Share of the pool by count"
    stack = stacked_columns(title, numbers, series, evidence.chosen)
    made = [figure(title, stack, "Times a sample stands in each round's training set.", COUNTS_SQL, evidence.run)]
    moves = [row for row in evidence.rounds if row["probed"]]
    if moves:
        raised = Series("raised", "up", [row["raised"] for row in moves])
        lowered = Series("lowered", "down", [row["lowered"] for row in moves])
        title = "Samples moved by each round"
        columns = two_way_columns(title, [row["round"] for row in moves], raised, lowered)
        made.append(figure(title, columns, "What each round changed for the next.", MOVES_SQL, evidence.run))
    else:
        made.append(absent("No round has moved a count yet."))
    return section("counts", "Counts", figures(*made))


def seconds_section(evidence: Evidence) -> str:
    """Wall seconds by phase."""
    rows = evidence.ask(SECONDS_SQL)
    total = sum(row["seconds"] for row in rows)
    if not rows or total <= 0:
        return section("seconds", "Time", absent("No timings are published yet."))
    shown = [(r["phase"], r["seconds"], f"{duration(r['seconds'])} ({percent(r['seconds'] / total, 0)})") for r in rows]
    title = "Wall time by phase"
    words = f"{duration(total)} in all rounds together; of all tables, only this one differs between equal runs."
    return section("seconds", "Time", figures(figure(title, bars(title, shown), words, SECONDS_SQL, evidence.run)))


def pictures_section(evidence: Evidence) -> str:
    """The contact sheets."""
    if not evidence.ask("SELECT 1 FROM samples LIMIT 1") or not evidence.ask("SELECT 1 FROM counts LIMIT 1"):
        return section("pictures", "Pictures", absent("No samples or no counts are published yet."))
    words = ["×n: times the pair stands in the " + _basis(evidence)]
    if evidence.knows_truth:
        words.append("The caption in colour is the true one, where it is another than the caption that was trained on")
    root = evidence.pool_directory
    lost = "" if root else absent(
        "The run's record (run.json) is not here, so the pool's directory is unknown: pictures in relative shards are left out."
    )
    made = [_sheet(evidence, sheet) for sheet in SHEETS]
    return section("pictures", "Pictures", paragraph(". ".join(words) + "."), lost, *made)


def duration(seconds: float) -> str:
    """Seconds for the eye."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _sheet(evidence: Evidence, sheet: Sheet) -> str:
    rows = evidence.ask_samples(sheet.sql)
    moved = [str(row["uid"]) for row in rows if "moved" in row]
    asked = (
        "SELECT uid, list(count ORDER BY round) AS path FROM counts WHERE uid IN (SELECT unnest(?::UUID[])) GROUP BY uid"
    )
    paths = {row["uid"]: row["path"] for row in evidence.ask(asked, [moved])} if moved else {}
    return contact_sheet(sheet, rows, evidence.pool_directory, evidence.run, paths)


def _basis(evidence: Evidence) -> str:
    chosen = evidence.chosen
    return "chosen round" if chosen is not None else "last round, as none is chosen yet"


def _choice(evidence: Evidence) -> str:
    if evidence.chosen is None:
        return " No round is chosen yet."
    rule = evidence.ask("SELECT rule FROM choices LIMIT 1")[0]["rule"].replace("_", " ").replace("heldout", "held-out")
    return f" Round {evidence.chosen} was chosen by {rule}."


def _rounds_table(rows: Sequence[dict[str, Any]]) -> str:
    columns = [name for name in rows[0] if name not in ("run", "seconds_by_phase") and any(r[name] is not None for r in rows)]
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    return data_table([name.replace("_", " ") for name in columns], cells, set(range(len(columns))))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "●" if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else ("–" if value is None else str(value))


def _rule(descent: dict[str, Any]) -> str:
    """What the update makes of g, from the catalog."""
    summed = " Here it acts on the sum over the rounds." if descent.get("memory") else ""
    p = percent(descent.get("p"), 0)
    if descent.get("rule") == "sign":
        return f"The sign decides: each round lowers counts right of 0 and raises them left of it, for {p} of the pool.{summed}"
    if descent.get("rule") == "exchange":
        share = percent(descent.get("share"), 0)
        return (
            f"The rank decides: of the {p} of the pool that a round moves, it raises the {share} with the lowest g and "
            f"lowers the {share} with the highest.{summed}"
        )
    return "The line at 0 parts what the sign rule raises from what it lowers."


def _histogram(evidence: Evidence, number: int) -> str:
    title = f"g in round {number}"
    source = f"FROM metagradients WHERE probed AND round = {number}"
    span = evidence.ask(f"SELECT quantile_cont(abs(g), 0.99) AS span {source}")[0]["span"]
    if not span:
        return figure(title, absent("No sample was probed in this round, or every g is 0."))
    # In scientific notation DuckDB reads a double; 4 digits keep the command line short.
    width = f"{span / BINS:.3e}"
    truth = "truth_clean" if evidence.knows_truth else "NULL::BOOLEAN"
    sql = (
        f"SELECT {truth} AS clean, greatest(-{BINS}, least({BINS - 1}, floor(g / {width})))::INTEGER AS bin, "
        "count(*) AS samples FROM metagradients JOIN samples USING (run, uid) "
        f"WHERE probed AND metagradients.round = {number} GROUP BY ALL ORDER BY ALL"
    )
    rows = evidence.ask(sql)
    kinds = [(True, "caption right", "clean"), (False, "caption wrong", "swapped"), (None, "samples", "plain")]
    series = [(name, style, {r["bin"]: r["samples"] for r in rows if r["clean"] is kind}) for kind, name, style in kinds]
    series = [one for one in series if one[2]]
    picture = histogram(title, float(width), series, "g")
    key = "".join(f'<span class="key {style}">{name}</span>' for name, style, _ in series if style != "plain")
    keys = f'<p class="keys">{key}</p>' if key else ""
    return figure(title, keys + picture, _histogram_words(evidence, number, rows), sql, evidence.run)


def _histogram_words(evidence: Evidence, number: int, rows: Sequence[dict[str, Any]]) -> str:
    total = sum(row["samples"] for row in rows)
    wanted = sum(row["samples"] for row in rows if row["bin"] < 0)
    words = f"{total:,} samples probed; g is below 0 for {percent(wanted / total, 0)}"
    for clean, name in ((True, "of right captions"), (False, "of wrong ones")):
        own = [row for row in rows if row["clean"] is clean]
        if own:
            share = sum(row["samples"] for row in own if row["bin"] < 0) / sum(row["samples"] for row in own)
            words += f", {name} for {percent(share, 0)}"
    # The counts that were chosen come from the g of the round before.
    here = " Its step made the chosen counts." if evidence.chosen == number + 1 else ""
    return words + "." + here + " The outermost bars hold all beyond."


def _truth_figures(evidence: Evidence) -> list[str]:
    """Precision and recall of the kept, and how well g tells right from wrong captions, by round."""
    rows = evidence.agreement
    if not rows:
        return [absent("The pool does not tell which captions are right, so precision and recall cannot be measured.")]
    numbers = [row["round"] for row in rows]
    shares = [("precision", "clean"), ("recall", "recall")]
    series = [Series(name, style, [row[name] for row in rows]) for name, style in shares]
    title = "What is kept against the truth"
    chart = line_chart(title, numbers, series, lambda v: percent(v, 0), evidence.chosen)
    words = "Precision: share of the kept samples whose caption is right. Recall: share of the right ones that are kept."
    made = [figure(title, chart, words, AGREEMENT_SQL, evidence.run)]
    scored = [row for row in rows if row["auc"] is not None]
    if scored:
        areas = [Series("one round", "target", [row["auc"] for row in scored])]
        areas.append(Series("summed", "heldout", [row["auc_sum"] for row in scored]))
        title = "How well g tells right from wrong"
        chart = line_chart(title, [row["round"] for row in scored], areas, lambda v: f"{v:.2f}", None)
        words = "AUC: chance that a right caption has a lower g than a wrong one; 0.5 knows nothing."
        made.append(figure(title, chart, words, AGREEMENT_SQL, evidence.run))
    return made
