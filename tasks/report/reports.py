"""The report: one HTML page that shows what a curation did, complete in itself.

The page says the result in words and numbers, then shows where they come from: comparison, rounds,
metagradients, counts, time, the pictures, and the run's record. It needs no network, no script and nothing
beside it; pictures are data URLs, charts inline SVG, and a content security policy forbids everything else.
Template and style are data (`catalogs/pages`). Equal tables and records give equal bytes.

Cost: a few queries over the run's tables, and some 130 ranged reads for the pictures. What a run has not got
yet is said on the page, so a report can be written at any time after the first table.
"""

from __future__ import annotations

from pathlib import Path

from tasks.files.artefacts import publish_bytes
from tasks.html.pages import render
from tasks.report.headline import comparison, headline
from tasks.report.metagradient_section import metagradients
from tasks.report.record_section import record, rejects
from tasks.report.report_sections import counts, pictures, rounds, seconds
from tasks.report.result_words import summary
from tasks.report.results import format_result_table, result_table
from tasks.report.run_data import RunData
from tasks.report.task_section import by_task
from tasks.report.text_sheets import groups
from tasks.tables.queries import asking, connect

__all__ = ["format_result_table", "result_table", "summary", "write_report"]

PARTS = (headline, comparison, rounds, metagradients, by_task, counts, groups, seconds, pictures, rejects, record)


@asking()
def write_report(home: str | Path, run: str) -> Path:
    """Write `<home>/runs/<run>/report.html` and return its path.

    Raises QueryError when the run has published no table.
    """
    home = Path(home)
    with connect(home, run) as connection:
        page = render_report(RunData(home, run, connection))
    path = home / "runs" / run / "report.html"
    publish_bytes(path, page.encode())
    return path


def render_report(data: RunData) -> str:
    """The page as text."""
    told = {part.__name__: part(data) for part in PARTS}
    return render("report", title=f"mgd: {data.run}", run=data.run, **told)
