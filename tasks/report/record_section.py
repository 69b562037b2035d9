"""The report's end: what was rejected and why, and the run's record: catalog, versions, threads, digests."""

from __future__ import annotations

from typing import Any

from tasks.files.artefacts import file_digest
from tasks.html.pages import Table
from tasks.report.run_data import RunData
from tasks.tables.published import counts_file

REJECTS_SQL = "SELECT reason, samples, example FROM reject_reasons ORDER BY samples DESC, reason"
VIEWS_SQL = "SELECT * FROM views"


def rejects(data: RunData) -> dict[str, Any]:
    """Rejected samples by reason, with an example of each; nothing if there are none."""
    rows = data.ask(REJECTS_SQL)
    cells = [[row["reason"].replace("_", " "), f"{row['samples']:,}", row["example"] or ""] for row in rows]
    table = Table(["reason", "samples", "example"], cells, [1])
    total = f"{sum(row['samples'] for row in rows):,}"
    return {"total": total, "table": table, "sql": REJECTS_SQL} if rows else {}


def record(data: RunData) -> dict[str, Any]:
    """What the run is a function of, and how to go on asking."""
    path = data.directory / "catalog.toml"
    catalog = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    return {"facts": _facts(data) if data.record else None, "catalog": catalog, "sql": VIEWS_SQL}


def _facts(data: RunData) -> Table:
    record = data.record
    facts: list[tuple[str, Any]] = [("run", data.run), ("pool", record.get("pool_id"))]
    facts += [(name.replace("_", " "), value) for name, value in sorted(record.get("environment", {}).items())]
    facts += [
        ("digest of the pool", record.get("pool_digest")),
        ("digest of the catalog", record.get("catalog_digest")),
    ]
    if data.chosen is not None:
        counts = counts_file(data.home, data.run, data.chosen)
        facts.append(("digest of the chosen counts", file_digest(counts) if counts else None))
    versions = sorted(record.get("versions", {}).items())
    facts.append(("versions", ", ".join(f"{name} {value}" for name, value in versions) or None))
    rows = [[name, str(value)] for name, value in facts if value is not None]
    return Table(["what the result is a function of", ""], rows)
