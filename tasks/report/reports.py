"""The report: one HTML page that shows what a curation did, complete in itself.

The page says the result in words and numbers, then shows where they come from: comparison, rounds,
metagradients, counts, time, the pictures, and the run's record. It needs no network, no script and nothing
beside it; pictures are data URLs, charts inline SVG, and a content security policy forbids everything else.
Template and style are data (`catalogs/report`). Equal tables and records give equal bytes.

Cost: a few queries over the run's tables, and some 130 ranged reads for the pictures. What a run has not got
yet is said on the page, so a report can be written at any time after the first table.
"""

from __future__ import annotations

from pathlib import Path
from string import Template

from tasks.files.artefacts import publish_bytes
from tasks.files.package_data import CATALOGS
from tasks.html.markup import text
from tasks.report.headline import comparison_section, headline
from tasks.report.metagradient_section import metagradients_section
from tasks.report.record_section import record_section, rejects_section
from tasks.report.report_sections import (
    counts_section,
    pictures_section,
    rounds_section,
    seconds_section,
)
from tasks.report.result_words import summary
from tasks.report.results import format_result_table, result_table
from tasks.report.run_data import Evidence
from tasks.report.text_sheets import groups_section
from tasks.tables.queries import asking, connect

__all__ = ["format_result_table", "result_table", "summary", "write_report"]

LOOKS = CATALOGS / "report"
SECTIONS = (
    comparison_section,
    rounds_section,
    metagradients_section,
    counts_section,
    groups_section,
    seconds_section,
    pictures_section,
    rejects_section,
    record_section,
)


@asking()
def write_report(home: str | Path, run: str) -> Path:
    """Write `<home>/runs/<run>/report.html` and return its path.

    Raises QueryError when the run has published no table.
    """
    home = Path(home)
    with connect(home, run) as connection:
        page = render_report(Evidence(home, run, connection))
    path = home / "runs" / run / "report.html"
    publish_bytes(path, page.encode())
    return path


def render_report(evidence: Evidence) -> str:
    """The page as text."""
    template = Template((LOOKS / "page.html").read_text(encoding="utf-8"))
    style = (LOOKS / "style.css").read_text(encoding="utf-8")
    sections = [made for made in (section(evidence) for section in SECTIONS) if made]
    return template.substitute(
        title=text(f"mgd: {evidence.run}"), style=style, headline=headline(evidence), body="\n".join(sections)
    )
