"""The report's sections on the descent: losses by round, counts, seconds, and the pictures.

Each turns data into what the page's template is told, and says what is missing instead of leaving a gap. The
numbers in the text are those of the charts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tasks.evaluation.measures import percent, share_error
from tasks.files.plurals import counted
from tasks.html.charts import Series, bars, line_chart, stacked_columns, two_way_columns
from tasks.html.pages import Figure, Figures, Table
from tasks.report.contact_sheets import GALLERIES, Gallery, contact_sheet
from tasks.report.run_data import RunData
from tasks.report.text_sheets import text_sheet

ROUNDS_SQL = "SELECT round, chosen, target_loss, heldout_loss, target_accuracy, heldout_accuracy FROM rounds_summary"
COUNTS_SQL = """SELECT round, avg((count = 0)::INTEGER) AS dropped, avg((count = 1)::INTEGER) AS once,
    avg((count = 2)::INTEGER) AS twice, avg((count > 2)::INTEGER) AS more FROM counts GROUP BY round ORDER BY round"""
MOVES_SQL = "SELECT round, raised, lowered FROM rounds ORDER BY round"
SECONDS_SQL = "SELECT phase, sum(seconds) AS seconds FROM timings GROUP BY phase ORDER BY seconds DESC, phase"


def rounds(data: RunData) -> dict[str, Any] | str:
    """Loss and accuracy by round, and every figure of the rounds table to open."""
    rows = data.rounds
    if not rows:
        only = data.descent.get("rounds") == 0
        return "The catalog asks for no round: it compares only." if only else "No round has finished yet."
    return {
        "choice": _choice(data),
        "error": _error(data),
        "figures": _rounds_figures(data) if len(rows) > 1 else (),
        "table": _rounds_table(rows),
        "sql": ROUNDS_SQL,
    }


def counts(data: RunData) -> Figures:
    """Shares of samples by count over the rounds, and how many each round raised and lowered."""
    shares = data.ask(COUNTS_SQL)
    if not shares:
        return "No counts are published yet."
    names = [("dropped", "×0 dropped", "c0"), ("once", "×1", "c1"), ("twice", "×2", "c2"), ("more", "×3 or more", "c3")]
    series = [Series(name, style, [row[key] for row in shares]) for key, name, style in names]
    title = "Share of the pool by count"
    stack = stacked_columns(title, [row["round"] for row in shares], series, data.chosen)
    made = Figure(title, stack, "Times a sample stands in each round's training set.", COUNTS_SQL)
    moves = [row for row in data.rounds if row["probed"]]
    if not moves:
        return [made, "No round has moved a count yet."]
    raised = Series("raised", "up", [row["raised"] for row in moves])
    lowered = Series("lowered", "down", [row["lowered"] for row in moves])
    title = "Samples moved by each round"
    columns = two_way_columns(title, [row["round"] for row in moves], raised, lowered)
    return [made, Figure(title, columns, "What each round changed for the next.", MOVES_SQL)]


def seconds(data: RunData) -> Figures:
    """Wall seconds by phase."""
    rows = data.ask(SECONDS_SQL)
    total = sum(row["seconds"] for row in rows)
    if not rows or total <= 0:
        return "No timings are published yet."
    shown = [(r["phase"], r["seconds"], f"{duration(r['seconds'])} ({percent(r['seconds'] / total, 0)})") for r in rows]
    title = "Wall time by phase"
    words = f"{duration(total)} in all rounds together; of all tables, only this one differs between equal runs."
    return [Figure(title, bars(title, shown), words, SECONDS_SQL)]


def pictures(data: RunData) -> dict[str, Any]:
    """The samples behind the counts: contact sheets of pictures, or tables of texts."""
    if not data.ask("SELECT 1 FROM samples LIMIT 1") or not data.ask("SELECT 1 FROM counts LIMIT 1"):
        missing = ["No samples or no counts are published yet."]
        return {"title": "Samples", "words": "", "missing": missing, "galleries": ()}
    return SHOWN.get(data.kind, _tables)(data)


def duration(seconds: float) -> str:
    """Seconds for the eye."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _tables(data: RunData) -> dict[str, Any]:
    """Galleries as tables of the samples' texts, which every kind has."""
    words = f"×n: times the sample stands in the {_basis(data)}."
    made = [text_sheet(gallery, rows, data.run, paths) for gallery, rows, paths in _galleries(data)]
    return {"title": "Samples", "words": words, "missing": (), "galleries": made}


def _pictures(data: RunData) -> dict[str, Any]:
    """Contact sheets."""
    words, root = f"×n: times the pair stands in the {_basis(data)}.", data.pool_directory
    if data.knows_truth:
        words += " The caption in colour is the true one, where it is another than the caption that was trained on."
    unknown = "The run's record (run.json) is not here, so the pool's directory is unknown"
    lost = [] if root else [f"{unknown}: pictures in relative shards are left out."]
    made = [contact_sheet(gallery, rows, root, data.run, paths) for gallery, rows, paths in _galleries(data)]
    return {"title": "Pictures", "words": words, "missing": lost, "galleries": made}


SHOWN = {"pairs": _pictures}
"""How samples are shown, by kind; others as tables."""


def _galleries(data: RunData) -> Iterator[tuple[Gallery, list[dict[str, Any]], dict[Any, list[int]]]]:
    """Each gallery with its samples, and the counts of the rounds of those that moved."""
    asked = "SELECT uid, list(count ORDER BY round) AS path FROM counts WHERE uid IN (SELECT unnest(?::UUID[])) "
    asked += "GROUP BY uid"
    for gallery in GALLERIES:
        rows = data.ask_samples(gallery.sql)
        moved = [str(row["uid"]) for row in rows if "moved" in row]
        yield gallery, rows, {row["uid"]: row["path"] for row in data.ask(asked, [moved])} if moved else {}


def _basis(data: RunData) -> str:
    chosen = data.chosen
    return "chosen round" if chosen is not None else "last round, as none is chosen yet"


def _rounds_figures(data: RunData) -> Figures:
    rows, numbers = data.rounds, [row["round"] for row in data.rounds]

    def chart(title: str, what: str, show: Callable[[float, int], str], digits: int) -> Figure:
        series = [
            Series("target", "target", [row[f"target_{what}"] for row in rows]),
            Series("held-out", "heldout", [row[f"heldout_{what}"] for row in rows]),
        ]
        digits += _digits([value for one in series for value in one.values if value is not None])
        drawn = line_chart(title, numbers, series, lambda value: show(value, max(0, digits)), data.chosen)
        return Figure(title, drawn)

    return [
        chart("Loss, nats", "loss", lambda value, digits: f"{value:.{digits}f}", 0),
        chart("Accuracy", "accuracy", percent, -2),
    ]


def _digits(values: Sequence[float]) -> int:
    """Digits after the point that tell the values of a chart apart."""
    span = max(values) - min(values)
    return max(0, math.ceil(-math.log10(span)) + 1) if span > 0 else 3


CHOICES = {
    "heldout_loss": "the lowest held-out loss",
    "heldout_accuracy": "the highest held-out accuracy",
    "heldout_accuracy_1se": "the last within one standard error of the highest held-out accuracy",
}


def _choice(data: RunData) -> str:
    if data.chosen is None:
        return " No round is chosen yet."
    rule = data.ask("SELECT rule FROM choices LIMIT 1")[0]["rule"]
    blend = next((row.get("blend") for row in data.rounds if row["round"] == data.chosen), None)
    if blend:
        return (
            f" Round {data.chosen} was chosen, which trained on what g and {blend} choose together: the held-out "
            "target prefers it to every other."
        )
    return f" Round {data.chosen} was chosen: {CHOICES.get(rule, rule)}."


def _error(data: RunData) -> str:
    """How far a held-out accuracy can be trusted; nothing where its size is not known."""
    rows = [row for row in data.rounds if row["heldout_n"]]
    if not rows:
        return ""
    n, most = rows[-1]["heldout_n"], max(share_error(row["heldout_accuracy"], row["heldout_n"]) for row in rows)
    return f" It has {counted(n, 'sample')}: standard error of its accuracy up to {100 * most:.1f} points."


def _rounds_table(rows: Sequence[dict[str, Any]]) -> Table:
    columns = [
        name for name in rows[0] if name not in ("run", "seconds_by_phase") and any(r[name] is not None for r in rows)
    ]
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    return Table([name.replace("_", " ") for name in columns], cells, range(len(columns)))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "●" if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else ("–" if value is None else str(value))
