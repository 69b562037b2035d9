"""The report's section on many tasks: what a round's model is worth to each, how alike what they want is, and the
pictures that each wants most, and that one wants and another does not.

Names of tasks are the user's: queries that a page repeats name a task by its number.
"""

from __future__ import annotations

from typing import Any

from tasks.evaluation.measures import metric, percent
from tasks.html.pages import Table
from tasks.report.contact_sheets import TILES, Gallery, contact_sheet
from tasks.report.run_data import RunData

SHOWN_EACH = TILES // 2
MOST_SHOWN = 8
"""Tasks whose pictures are shown; all are in the tables."""
SCORES_SQL = """SELECT task, metric, min_by(value, round) AS first, max_by(value, round) AS last,
    min_by(loss, round) AS first_loss, max_by(loss, round) AS last_loss FROM task_scores
    WHERE part = 'heldout' AND round IN (0, {round}) GROUP BY task, metric ORDER BY task"""
SIMILARITY_SQL = "SELECT task, other, correlation, agreement FROM task_similarity WHERE round = {round}"
TOLD = " g: in standard deviations of the task's g"


def by_task(data: RunData) -> dict[str, Any] | None:
    """Scores, similarities and pictures; nothing where there is one task."""
    if not _has(data, "task_scores"):
        return None
    last = data.chosen if data.chosen is not None else max(row["round"] for row in data.rounds)
    scores_sql = SCORES_SQL.format(round=last)
    made: dict[str, Any] = {"scores": _scores(data.ask(scores_sql), last), "scores_sql": scores_sql}
    made |= {"round": None, "missing": "", "galleries": ()}
    if not _has(data, "task_metagradients"):
        words = "What each task wants of the samples is not told: targets.per_task is none, or the run has not ended."
        return made | {"missing": words}
    round = data.ask("SELECT max(round) AS round FROM task_metagradients")[0]["round"]
    similarity_sql = SIMILARITY_SQL.format(round=round)
    rows = data.ask(similarity_sql)
    made |= {"round": round, "similarity": _similarity(rows) if rows else None, "similarity_sql": similarity_sql}
    return made | {"galleries": [_sheet(data, gallery) for gallery in _galleries(data, round)]}


def _has(data: RunData, table: str) -> bool:
    return bool(data.ask(f"SELECT 1 FROM {table} LIMIT 1"))


def _scores(rows: list[dict[str, Any]], last: int) -> Table:
    """Each task on the held-out part, after round 0 and in the round that is told of."""
    header = ("task", "metric", "after round 0", f"round {last}", "loss, nats", f"round {last}")
    cells = [
        (row["task"], metric(row["metric"]).words, *map(percent, (row["first"], row["last"])), *_losses(row))
        for row in rows
    ]
    return Table(header, cells, right=(2, 3, 4, 5))


def _losses(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['first_loss']:.3f}", f"{row['last_loss']:.3f}"


def _similarity(rows: list[dict[str, Any]]) -> Table:
    """Correlations of g, a row and a column a task."""
    names = sorted({row["task"] for row in rows})
    found = {(row["task"], row["other"]): row["correlation"] for row in rows}

    def cell(one: str, other: str) -> str:
        value = found.get((one, other))
        return "" if one == other else "–" if value is None else f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")

    cells = [(one, *(cell(one, other) for other in names)) for one in names]
    return Table(("", *names), cells, right=tuple(range(1, len(names) + 1)))


def _galleries(data: RunData, round: int) -> list[Gallery]:
    numbered = "SELECT DISTINCT task_number, task FROM wanted_by_task WHERE round = ? ORDER BY task_number"
    made = [
        Gallery(
            f"Wanted most by “{row['task']}”",
            "Those of the lowest g.",
            "SELECT uid, text, strength AS g_sum, NULL::DOUBLE AS g_sum_later, count FROM wanted_by_task WHERE "
            f"round = {round} AND task_number = {row['task_number']} ORDER BY place LIMIT {SHOWN_EACH}",
            "No sample was probed.",
            TOLD,
        )
        for row in data.ask(numbered, [round])[:MOST_SHOWN]
    ]
    return [
        *made,
        Gallery(
            "Wanted by one and not by another",
            "Those that two tasks feel most strongly about, in opposite ways.",
            "SELECT uid, 'helps ' || wanted_by || ', hurts ' || unwanted_by || ': ' || coalesce(text, '') AS text, "
            "wanted AS g_sum, unwanted AS g_sum_later, count FROM conflicts WHERE "
            f"round = {round} ORDER BY clash DESC, uid LIMIT {TILES}",
            "No sample is wanted by one task and not by another.",
            f"{TOLD} that it helps, in brackets of the one that it hurts",
        ),
    ]


def _sheet(data: RunData, gallery: Gallery) -> Any:
    return contact_sheet(gallery, data.ask_samples(gallery.sql), data.pool_directory, data.run, {})
