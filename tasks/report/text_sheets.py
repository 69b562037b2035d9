"""Samples of a pool of texts behind the counts: the same galleries as of pictures, as tables; and counts by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tasks.html.charts import scale_exponent, unit_name
from tasks.html.pages import Table, render
from tasks.report.contact_sheets import Gallery, count_told, signed, summed, summed_exponent, summed_words
from tasks.report.run_data import RunData

LONGEST = 400  # characters of a sample that are shown; of longer ones the end, where the completion is
GROUP = "task"
GROUPED = {"texts": GROUP}
"""The column whose values are told apart, by kind of samples."""
GROUPS_SQL = f"""SELECT {GROUP}, count(*) AS samples, avg((count > 0)::INTEGER) AS kept, avg(count) AS mean_count,
    avg(g_sum) AS mean_g FROM sample_outcomes GROUP BY {GROUP} ORDER BY mean_count DESC, {GROUP}"""


def text_sheet(gallery: Gallery, rows: Sequence[dict[str, Any]], run: str, paths: dict[Any, list[int]]) -> Markup:
    """One gallery as HTML; arguments as those of `contact_sheets.contact_sheet`."""
    exponent = summed_exponent(rows)
    known = any(row.get("truth_clean") is not None for row in rows)
    cells = [_cells(row, exponent, paths.get(row["uid"]), known) for row in rows]
    table = Table(["sample", "g", "count", *(["right"] if known else [])], cells, [1, 2])
    return render("gallery", run=run, gallery=gallery, rows=rows, told=summed_words(rows, exponent), table=table)


def groups(data: RunData) -> dict[str, Any] | str:
    """Counts and g by task, of a pool of texts that has such a column; nothing for other pools."""
    if GROUPED.get(data.kind) not in data.sample_columns:
        return {}
    if not data.ask("SELECT 1 FROM counts LIMIT 1"):
        return "No counts are published yet."
    rows = data.ask(GROUPS_SQL)
    exponent = scale_exponent(max((abs(row["mean_g"]) for row in rows if row["mean_g"] is not None), default=0.0))
    cells = [
        [
            str(row[GROUP]),
            f"{row['samples']:,}",
            f"{row['kept']:.0%}",
            f"{row['mean_count']:.2f}",
            "–" if row["mean_g"] is None else signed(row["mean_g"] / 10**exponent),
        ]
        for row in rows
    ]
    table = Table([GROUP, "samples", "kept", "mean count", "mean g"], cells, [1, 2, 3, 4])
    return {"unit": unit_name(exponent), "table": table, "sql": GROUPS_SQL}


def _cells(row: dict[str, Any], exponent: int, path: list[int] | None, known: bool) -> list[str]:
    words = str(row["text"])
    shown = words if len(words) <= LONGEST else f"… {words[-LONGEST:]}"
    right = {True: "yes", False: "no", None: ""}[row.get("truth_clean")]
    return [shown, summed(row, exponent), count_told(row, path), *([right] if known else [])]
