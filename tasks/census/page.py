"""The census's page: what was found, against what is allowed, and how the pool is made, in one HTML file.

It needs no network, no script and nothing beside it, like the report of a run, whose looks it shares. Equal tables
give equal bytes. Cost: a few scans of the census's tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from tasks.census.tables import CENSUS
from tasks.census.verdict import CensusRecord
from tasks.files.artefacts import publish_bytes
from tasks.html.charts import bars
from tasks.html.histograms import bin_values, histogram
from tasks.html.pages import Figure, Figures, Table, render
from tasks.pool.census_kinds import KINDS
from tasks.tables.sql_names import parquet

EXAMPLES = 3
# Title, unit, and column or expression of the samples table, in the order of the page.
SIZES = (
    ("Width and height of the pictures", "pixels", {"width": "width", "height": "height"}),
    ("Length of the captions", "characters", {"captions": "caption_characters"}),
    ("Words of the captions", "words", {"captions": "caption_words"}),
    ("Size of the pictures", "kB", {"pictures": "image_bytes / 1000"}),
)
SCORES = {"ViT-B/32": "clip_b32_similarity_score", "ViT-L/14": "clip_l14_similarity_score"}


def write_census_page(directory: Path, record: CensusRecord) -> Path:
    """Write `census.html` beside the census's tables and return its path."""
    with duckdb.connect(":memory:", config=CENSUS) as connection:
        for table in ("shards", "samples", "attempts", "metadata", "findings"):
            connection.execute(f"CREATE VIEW {table} AS FROM {parquet([directory / f'{table}.parquet'])}")
        page = render(
            "census",
            title=f"census: {record.pool_id}",
            source=record.source,
            headline=_headline(record),
            verdict=_verdict(record),
            findings=_findings(connection, record),
            samples=_pictures_and_captions(connection, record),
            links=_links(connection, record),
            shards=_shards(connection),
            directory=directory,
        )
    path = directory / "census.html"
    publish_bytes(path, page.encode())
    return path


def format_census(record: CensusRecord) -> str:
    """The verdict as text for a terminal, a line a kind."""
    rows = [("", "found", "of", "allowed"), *(_cells(line) for line in record.lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip()
        + ("   over" if i and record.lines[i - 1].over else "")
        for i, (a, b, c, d) in enumerate(rows)
    ]
    return "\n".join([_summary(record), "", *lines])


def _headline(record: CensusRecord) -> tuple[str, str, list[tuple[str, str]]]:
    """Title, lead paragraph and key figures."""
    totals = record.totals
    key = {
        "samples that can be used": f"{totals['samples']:,}",
        "tried": f"{totals['attempts']:,}" if totals["attempts"] else None,
        "in the metadata": f"{totals['metadata']:,}" if totals["metadata"] else None,
        "shards": f"{totals['shards']:,}",
        "GB": f"{totals['bytes'] / 1e9:,.3g}" if totals["bytes"] else None,
    }
    title = "The pool is within its budget" if record.within_budget else "The pool is over its budget"
    return title, _summary(record), [(name, value) for name, value in key.items() if value is not None]


def _summary(record: CensusRecord) -> str:
    totals, over = record.totals, [line for line in record.lines if line.over]
    words = [f"{totals['samples']:,} samples in {totals['shards']:,} shards can be used"]
    if totals["attempts"] >= max(1, totals["samples"]):  # fewer where some folders come without tables
        words[0] += f", of {totals['attempts']:,} that were tried ({totals['samples'] / totals['attempts']:.1%})"
    if over:
        told = "; ".join(f"{_name(line.kind)} {line.count:,} ({line.allowed or 0:,} allowed)" for line in over)
        words.append(f"Over the budget: {told}")
    else:
        words.append("Nothing was found beyond what the catalog allows")
    return ". ".join(words) + "."


def _verdict(record: CensusRecord) -> Table:
    rows = [[*_cells(line), "over" if line.over else "", _doc(line.kind)] for line in record.lines]
    return Table(["", "found", "of", "allowed", "", "what it means"], rows, [1, 2, 3, 4])


def _findings(connection: duckdb.DuckDBPyConnection, record: CensusRecord) -> Iterator[tuple[str, Table]]:
    """What is told of each kind of finding, and some examples."""
    for kind, number in record.findings.items():
        sql = f"SELECT shard, member, uid, detail FROM findings WHERE kind = ? LIMIT {EXAMPLES}"
        cells = [
            [str(a or ""), str(b or ""), str(c or "").replace("-", ""), str(d or "")]
            for a, b, c, d in connection.execute(sql, [kind]).fetchall()
        ]
        title = f"{_name(kind)}: {number:,}" + (f", the first {EXAMPLES}" if number > EXAMPLES else "")
        yield title, Table(["shard or file", "member", "uid", "detail"], cells)


def _pictures_and_captions(connection: duckdb.DuckDBPyConnection, record: CensusRecord) -> Figures:
    if not record.totals["samples"]:
        return "No sample can be used."
    drawn = [_histogram(connection, "samples", *one) for one in SIZES]
    if record.totals["metadata"]:
        drawn.append(
            _histogram(connection, "metadata", "CLIP scores in the metadata", "cosine of picture and caption", SCORES)
        )
    return [one for one in drawn if one is not None]


def _links(connection: duckdb.DuckDBPyConnection, record: CensusRecord) -> dict[str, Any]:
    if not record.totals["attempts"]:
        return {}
    statuses = _counted(connection, "SELECT coalesce(status, 'no status') FROM attempts")
    names = {"success": "downloaded", "failed_to_download": "not downloaded", "failed_to_resize": "not resized"}
    title = "What became of the links"
    drawn = bars(title, [(names.get(s, s)[:15], n, f"{n:,}") for s, n in statuses])
    told = "SELECT coalesce(nullif(error, ''), status) FROM attempts WHERE status <> 'success'"
    errors = [[error, f"{n:,}"] for error, n in _counted(connection, told)]
    why = Table(["the commonest reasons why they failed", "links"], errors, [1])
    return {"figures": [Figure(title, drawn)], "errors": why}


def _shards(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    share = "CASE WHEN attempted > 0 THEN 100.0 * samples / attempted END"
    sizes = _histogram(connection, "shards", "Samples in a shard", "samples", {"shards": "samples"}, "shards")
    title = "Share of a shard's links that became samples"
    known = _histogram(connection, "shards", title, "%", {"shards": share}, "shards")
    worst = connection.execute(
        "SELECT shard, samples, rejects, attempted FROM shards ORDER BY rejects DESC, samples, shard LIMIT 10"
    ).fetchall()
    cells = [[row[0], *(f"{value:,}" if value is not None else "–" for value in row[1:])] for row in worst]
    table = Table(["shard", "samples", "rejected", "tried"], cells, [1, 2, 3])
    return {"figures": [one for one in (sizes, known) if one is not None], "worst": table}


def _histogram(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    title: str,
    unit: str,
    columns: dict[str, str],
    what: str = "samples",
) -> Figure | None:
    """Histograms of some columns over common bins; None where there is no value."""
    bins = bin_values(lambda sql: connection.execute(sql).fetchall(), table, columns)
    return Figure(title, histogram(title, bins, unit, what), bins.words) if bins.counts else None


def _counted(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[str, int]]:
    """The commonest answers of a query of one column, with their numbers."""
    rows = connection.execute(
        f"SELECT what, count(*) FROM ({sql}) AS asked(what) GROUP BY what ORDER BY count(*) DESC, what LIMIT 8"
    ).fetchall()
    return [(str(what), int(number)) for what, number in rows]


def _cells(line: Any) -> tuple[str, str, str, str]:
    allowed = "–" if line.allowed is None else f"{line.allowed:,}"
    return _name(line.kind), f"{line.count:,}", f"{line.total:,} {line.of}", allowed


def _name(kind: str) -> str:
    return kind.replace("_", " ")


def _doc(kind: str) -> str:
    return KINDS[kind].doc if kind in KINDS else "the pool's own budget, by which it is built"
