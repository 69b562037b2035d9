"""What is said beside the result table: how far its figures can be trusted, what its rivals are, what to beware of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.files.plurals import counted
from tasks.report.overfitting import parting
from tasks.report.results import (
    ERROR,
    NO_RIVALS,
    SIZE,
    ahead,
    catalog_of,
    format_result_table,
    paired_differences,
    result_table,
    spoken,
)
from tasks.tables.published import files, read
from tasks.tables.run_folders import chosen_round


def summary(home: str | Path, run: str) -> str:
    """What a run found, for a terminal: the result table, how far its figures can be trusted, and what to beware of."""
    rows = result_table(home, run)
    found = files(home, run, "rounds")
    told = [*precision(rows), *lead_over_best(home, run, rows), *baselines_told(home, run)]
    if found:
        told.append(parting(read(home, run, "rounds").to_pylist(), chosen_round(home, run)))
    return "\n".join([format_result_table(rows), *filter(None, told)])


def precision(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence on each test: its samples, and what their choice does to an accuracy."""
    measures = [key.removesuffix(ERROR) for key in (rows[0] if rows else {}) if key.endswith(ERROR)]
    told = []
    for measure in measures:
        errors = [row[measure + ERROR] for row in rows if row[measure + ERROR] is not None]
        n = max((row[measure + SIZE] for row in rows if row[measure + SIZE] is not None), default=None)
        if errors and n:
            most = f"{100 * max(errors):.1f}"
            told.append(
                f"{spoken(measure)}: {counted(n, 'sample')}, standard error up to {most} points by their choice."
            )
    return told


def lead_over_best(home: str | Path, run: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence on each test: how far the chosen subset is ahead of the best rival, and how sure that is."""
    differences, told = paired_differences(home, run), []
    names = {row["subset"]: row["name"] for row in rows}
    rivals = names.keys() - NO_RIVALS
    for task, name in dict.fromkeys((task, name) for _, task, name in differences):
        own = [row for key, row in differences.items() if key[1:] == (task, name) and key[0] in rivals]
        if own:
            best = min(own, key=lambda row: row["difference"])
            told.append(
                f"{spoken(f'{task} {name}')}: {names['mgd']} less the best rival, {names[best['subset']]}: "
                f"{ahead(best)} points."
            )
    return told


def baselines_told(home: str | Path, run: str) -> list[str]:
    """What each rival of the catalog is, and that it keeps its own size."""
    rivals = catalog_of(home, run).get("comparison", {}).get("rivals", {})
    return [
        f"{name}: {expression}; its own samples, trained as long as the others." for name, expression in rivals.items()
    ]
