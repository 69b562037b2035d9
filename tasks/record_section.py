"""The report's end: what was rejected and why, and the run's record: catalog, versions, threads, digests."""

from __future__ import annotations

from typing import Any

from tasks.artefacts import file_digest
from tasks.evidence import Evidence
from tasks.markup import absent, command, data_table, folded, paragraph, section, text
from tasks.tables import counts_file

REJECTS_SQL = "SELECT reason, samples, example FROM reject_reasons ORDER BY samples DESC, reason"
VIEWS_SQL = "SELECT * FROM views"


def rejects_section(evidence: Evidence) -> str:
    """Rejected samples by reason, with an example of each; nothing if there are none."""
    rows = evidence.ask(REJECTS_SQL)
    if not rows:
        return ""
    total = sum(row["samples"] for row in rows)
    cells = [[row["reason"].replace("_", " "), f"{row['samples']:,}", row["example"] or ""] for row in rows]
    words = f"{total:,} of the source's samples could not be used and were left out."
    table = data_table(["reason", "samples", "example"], cells, {1})
    return section("rejects", "Rejected", paragraph(words), table, command(evidence.run, REJECTS_SQL))


def record_section(evidence: Evidence) -> str:
    """What the run is a function of, and how to go on asking."""
    record = evidence.record
    made = [_facts(evidence)] if record else [absent("The run's record (run.json) is not here.")]
    catalog = evidence.directory / "catalog.toml"
    if catalog.exists():
        words = catalog.read_text(encoding="utf-8", errors="replace")
        made.append(folded("The catalog", f"<pre><code>{text(words)}</code></pre>"))
    else:
        made.append(absent("The run's catalog (catalog.toml) is not here."))
    more = (
        "Every picture above names the command that gives its numbers (add --home DIR if the runs are not in ./runs). "
        "The list of tables and views to ask comes from the line below; columns explains each column, and mgd sql "
        "alone opens a shell."
    )
    asked = command(evidence.run, VIEWS_SQL, "What there is to ask").replace("<details ", "<details open ", 1)
    return section("record", "The run", *made, "<h3>Ask more</h3>", paragraph(more), asked)


def _facts(evidence: Evidence) -> str:
    record = evidence.record
    facts: list[tuple[str, Any]] = [("run", evidence.run), ("pool", record.get("pool_id"))]
    facts += [(name.replace("_", " "), value) for name, value in sorted(record.get("environment", {}).items())]
    facts += [
        ("digest of the pool", record.get("pool_digest")),
        ("digest of the catalog", record.get("catalog_digest")),
    ]
    if evidence.chosen is not None:
        counts = counts_file(evidence.home, evidence.run, evidence.chosen)
        facts.append(("digest of the chosen counts", file_digest(counts) if counts else None))
    versions = sorted(record.get("versions", {}).items())
    facts.append(("versions", ", ".join(f"{name} {value}" for name, value in versions) or None))
    rows = [[name, str(value)] for name, value in facts if value is not None]
    return data_table(["what the result is a function of", ""], rows, set())
