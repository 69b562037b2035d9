"""The report's sections on the descent: losses by round, counts, seconds, and the pictures.

Each section turns evidence into markup and says what is missing instead of leaving a gap. The numbers in the text are
those of the charts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tasks.charts import Series, bars, line_chart, stacked_columns, two_way_columns
from tasks.contact_sheets import SHEETS, Sheet, contact_sheet
from tasks.evidence import Evidence
from tasks.markup import absent, command, data_table, figure, figures, folded, paragraph, section
from tasks.measures import percent, share_error
from tasks.plurals import counted
from tasks.text_sheets import text_sheet

ROUNDS_SQL = "SELECT round, chosen, target_loss, heldout_loss, target_accuracy, heldout_accuracy FROM rounds_summary"
COUNTS_SQL = """SELECT round, avg((count = 0)::INTEGER) AS dropped, avg((count = 1)::INTEGER) AS once,
    avg((count = 2)::INTEGER) AS twice, avg((count > 2)::INTEGER) AS more FROM counts GROUP BY round ORDER BY round"""
MOVES_SQL = "SELECT round, raised, lowered FROM rounds ORDER BY round"
SECONDS_SQL = "SELECT phase, sum(seconds) AS seconds FROM timings GROUP BY phase ORDER BY seconds DESC, phase"


def rounds_section(evidence: Evidence) -> str:
    """Loss and accuracy by round, and every figure of the rounds table to open."""
    rows = evidence.rounds
    if not rows:
        only = evidence.descent.get("rounds") == 0
        words = "The catalog asks for no round: it compares only." if only else "No round has finished yet."
        return section("rounds", "Round by round", absent(words))
    words = (
        "Each round trains afresh on its counts. The descent lowers the target loss; the held-out target, which it "
        f"never differentiates, chooses the round.{_choice(evidence)}{_error(evidence)}"
    )
    if len(rows) == 1:
        alone = paragraph("The run has a single round, so there is no course to draw.")
        shown = [alone, _rounds_table(rows)]
    else:
        shown = [_rounds_figures(evidence), folded("Every figure of the rounds", _rounds_table(rows))]
    return section("rounds", "Round by round", paragraph(words), *shown, command(evidence.run, ROUNDS_SQL))


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
    """The samples behind the counts: contact sheets of pictures, or tables of texts."""
    if not evidence.ask("SELECT 1 FROM samples LIMIT 1") or not evidence.ask("SELECT 1 FROM counts LIMIT 1"):
        return section("pictures", "Samples", absent("No samples or no counts are published yet."))
    return SHOWN.get(evidence.kind, _tables)(evidence)


def duration(seconds: float) -> str:
    """Seconds for the eye."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _tables(evidence: Evidence) -> str:
    """Sheets as tables of the samples' texts, which every kind has."""
    words = f"×n: times the sample stands in the {_basis(evidence)}."
    made = (text_sheet(sheet, rows, evidence.run, paths) for sheet, rows, paths in _sheets(evidence))
    return section("pictures", "Samples", paragraph(words), *made)


def _pictures(evidence: Evidence) -> str:
    """Contact sheets."""
    told = ["×n: times the pair stands in the " + _basis(evidence)]
    if evidence.knows_truth:
        told.append("The caption in colour is the true one, where it is another than the caption that was trained on")
    root = evidence.pool_directory
    lost = (
        ""
        if root
        else absent(
            "The run's record (run.json) is not here, so the pool's directory is unknown: pictures in relative shards "
            "are left out."
        )
    )
    made = (contact_sheet(sheet, rows, root, evidence.run, paths) for sheet, rows, paths in _sheets(evidence))
    return section("pictures", "Pictures", paragraph(". ".join(told) + "."), lost, *made)


SHOWN = {"pairs": _pictures}
"""How samples are shown, by kind; others as tables."""


def _sheets(evidence: Evidence) -> Iterator[tuple[Sheet, list[dict[str, Any]], dict[Any, list[int]]]]:
    """Each sheet with its samples, and the counts of the rounds of those that moved."""
    asked = "SELECT uid, list(count ORDER BY round) AS path FROM counts WHERE uid IN (SELECT unnest(?::UUID[])) "
    asked += "GROUP BY uid"
    for sheet in SHEETS:
        rows = evidence.ask_samples(sheet.sql)
        moved = [str(row["uid"]) for row in rows if "moved" in row]
        paths = {row["uid"]: row["path"] for row in evidence.ask(asked, [moved])} if moved else {}
        yield sheet, rows, paths


def _basis(evidence: Evidence) -> str:
    chosen = evidence.chosen
    return "chosen round" if chosen is not None else "last round, as none is chosen yet"


def _rounds_figures(evidence: Evidence) -> str:
    rows, numbers = evidence.rounds, [row["round"] for row in evidence.rounds]

    def chart(title: str, what: str, show: Callable[[float, int], str], digits: int) -> str:
        series = [
            Series("target", "target", [row[f"target_{what}"] for row in rows]),
            Series("held-out", "heldout", [row[f"heldout_{what}"] for row in rows]),
        ]
        digits += _digits([value for one in series for value in one.values if value is not None])
        drawn = line_chart(title, numbers, series, lambda value: show(value, max(0, digits)), evidence.chosen)
        return figure(title, drawn)

    return figures(
        chart("Loss, nats", "loss", lambda value, digits: f"{value:.{digits}f}", 0),
        chart("Accuracy", "accuracy", percent, -2),
    )


def _digits(values: Sequence[float]) -> int:
    """Digits after the point that tell the values of a chart apart."""
    span = max(values) - min(values)
    return max(0, math.ceil(-math.log10(span)) + 1) if span > 0 else 3


CHOICES = {
    "heldout_loss": "the lowest held-out loss",
    "heldout_accuracy": "the highest held-out accuracy",
    "heldout_accuracy_1se": "the last within one standard error of the highest held-out accuracy",
}


def _choice(evidence: Evidence) -> str:
    if evidence.chosen is None:
        return " No round is chosen yet."
    rule = evidence.ask("SELECT rule FROM choices LIMIT 1")[0]["rule"]
    return f" Round {evidence.chosen} was chosen: {CHOICES.get(rule, rule)}."


def _error(evidence: Evidence) -> str:
    """How far a held-out accuracy can be trusted; nothing where its size is not known."""
    rows = [row for row in evidence.rounds if row["heldout_n"]]
    if not rows:
        return ""
    n, most = rows[-1]["heldout_n"], max(share_error(row["heldout_accuracy"], row["heldout_n"]) for row in rows)
    return f" It has {counted(n, 'sample')}: standard error of its accuracy up to {100 * most:.1f} points."


def _rounds_table(rows: Sequence[dict[str, Any]]) -> str:
    columns = [
        name for name in rows[0] if name not in ("run", "seconds_by_phase") and any(r[name] is not None for r in rows)
    ]
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    return data_table([name.replace("_", " ") for name in columns], cells, set(range(len(columns))))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "●" if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else ("–" if value is None else str(value))
