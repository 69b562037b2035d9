"""Samples of a pool of texts behind the counts: the same sheets as of pictures, as tables; and counts by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.charts import scale_exponent, unit_name
from tasks.contact_sheets import Sheet, signed, summed, summed_exponent, summed_words
from tasks.evidence import Evidence
from tasks.markup import absent, command, data_table, paragraph, section, text

LONGEST = 400  # characters of a sample that are shown; of longer ones the end, where the completion is
GROUP = "task"
GROUPED = {"texts": GROUP}
"""The column whose values are told apart, by kind of samples."""
GROUPS_SQL = f"""SELECT {GROUP}, count(*) AS samples, avg((count > 0)::INTEGER) AS kept, avg(count) AS mean_count,
    avg(g_sum) AS mean_g FROM sample_outcomes GROUP BY {GROUP} ORDER BY mean_count DESC, {GROUP}"""


def text_sheet(sheet: Sheet, rows: Sequence[dict[str, Any]], run: str, paths: dict[Any, list[int]]) -> str:
    """One sheet as HTML; arguments as those of `contact_sheets.contact_sheet`."""
    if not rows:
        return f"<h3>{text(sheet.title)}</h3>" + paragraph(sheet.empty, "absent")
    exponent = summed_exponent(rows)
    known = any(row.get("truth_clean") is not None for row in rows)
    cells = [_cells(row, exponent, paths.get(row["uid"]), known) for row in rows]
    header = ["sample", "g", "count", *(["right"] if known else [])]
    unit = summed_words(rows, exponent)
    return "\n".join(
        [
            f"<h3>{text(sheet.title)}</h3>",
            paragraph(f"{sheet.words}{unit}", "told"),
            data_table(header, cells, {1, 2}),
            command(run, sheet.sql, "Ask for these samples"),
        ]
    )


def groups_section(evidence: Evidence) -> str:
    """Counts and g by task, of a pool of texts that has such a column; nothing for other pools."""
    if GROUPED.get(evidence.kind) not in evidence.sample_columns:
        return ""
    if not evidence.ask("SELECT 1 FROM counts LIMIT 1"):
        return section("groups", "By task", absent("No counts are published yet."))
    rows = evidence.ask(GROUPS_SQL)
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
    unit = f"g: mean of the sums over the rounds before the chosen one{unit_name(exponent)}"
    words = f"What the chosen counts make of each task; {unit}."
    table = data_table([GROUP, "samples", "kept", "mean count", "mean g"], cells, {1, 2, 3, 4})
    return section("groups", "By task", paragraph(words), table, command(evidence.run, GROUPS_SQL))


def _cells(row: dict[str, Any], exponent: int, path: list[int] | None, known: bool) -> list[str]:
    words = str(row["text"])
    shown = words if len(words) <= LONGEST else f"… {words[-LONGEST:]}"
    count = f"×{row['count']}" if path is None else f"×{'·'.join(map(str, path))}"
    g = summed(row, exponent)
    right = {True: "yes", False: "no", None: ""}[row.get("truth_clean")]
    return [shown, g, count, *([right] if known else [])]
