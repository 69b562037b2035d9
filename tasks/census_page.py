"""The census's page: what was found, against what is allowed, and how the pool is made, in one HTML file.

It needs no network, no script and nothing beside it, like the report of a run, whose looks it shares. Equal tables
give equal bytes. Cost: a few scans of the census's tables.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import duckdb

from tasks.artefacts import publish_bytes
from tasks.catalog import CATALOGS
from tasks.census_kinds import KINDS
from tasks.census_tables import CENSUS
from tasks.charts import bars
from tasks.histograms import Bins, bin_values, histogram
from tasks.markup import absent, data_table, figure, figures, folded, paragraph, section, text
from tasks.sql_names import parquet

if TYPE_CHECKING:
    from tasks.census import CensusRecord

LOOKS = CATALOGS / "report"
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
        body = [
            _found(connection, record),
            _pictures_and_captions(connection, record),
            _links(connection, record),
            _shards(connection),
            _tables(directory),
        ]
    template = Template((LOOKS / "page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=text(f"census: {record.pool_id}"),
        style=(LOOKS / "style.css").read_text(encoding="utf-8"),
        headline=_headline(record),
        body="\n".join(part for part in body if part),
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


def _headline(record: CensusRecord) -> str:
    totals = record.totals
    key = {
        "samples that can be used": f"{totals['samples']:,}",
        "tried": f"{totals['attempts']:,}" if totals["attempts"] else None,
        "in the metadata": f"{totals['metadata']:,}" if totals["metadata"] else None,
        "shards": f"{totals['shards']:,}",
        "GB": f"{totals['bytes'] / 1e9:,.3g}" if totals["bytes"] else None,
    }
    shown = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in key.items() if v is not None)
    where = f'<p class="eyebrow">Census of a pool · <code>{text(record.source)}</code></p>'
    title = "The pool is within its budget" if record.within_budget else "The pool is over its budget"
    return f"{where}\n<h1>{title}</h1>\n{paragraph(_summary(record), 'lead')}\n<dl class=figs>{shown}</dl>"


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


def _found(connection: duckdb.DuckDBPyConnection, record: CensusRecord) -> str:
    rows = [[*_cells(line), "over" if line.over else "", _doc(line.kind)] for line in record.lines]
    table = data_table(["", "found", "of", "allowed", "", "what it means"], rows, {1, 2, 3, 4})
    words = (
        "Each line is a sort of finding. What is allowed stands in the catalog: pool.max_rejects and "
        "pool.max_damaged_shards for the first two lines, census.limits for the rest; – means any number."
    )
    examples = []
    for kind, number in record.findings.items():
        sql = f"SELECT shard, member, uid, detail FROM findings WHERE kind = ? LIMIT {EXAMPLES}"
        cells = [
            [str(a or ""), str(b or ""), str(c or "").replace("-", ""), str(d or "")]
            for a, b, c, d in connection.execute(sql, [kind]).fetchall()
        ]
        title = f"{_name(kind)}: {number:,}" + (f", the first {EXAMPLES}" if number > EXAMPLES else "")
        examples.append(folded(title, data_table(["shard or file", "member", "uid", "detail"], cells, set())))
    return section("found", "What was found", paragraph(words), table, *examples)


def _pictures_and_captions(connection: duckdb.DuckDBPyConnection, record: CensusRecord) -> str:
    if not record.totals["samples"]:
        return section("samples", "Pictures and captions", absent("No sample can be used."))
    drawn = []
    for title, unit, columns in SIZES:
        made = _bins(connection, "samples", columns)
        drawn.append(figure(title, histogram(title, made, unit), made.words))
    if record.totals["metadata"]:
        made = _bins(connection, "metadata", SCORES)
        if made.counts:
            title = "CLIP scores in the metadata"
            drawn.append(figure(title, histogram(title, made, "cosine of picture and caption"), made.words))
    return section("samples", "Pictures and captions", figures(*drawn))


def _links(connection: duckdb.DuckDBPyConnection, record: CensusRecord) -> str:
    if not record.totals["attempts"]:
        words = "No shard has a table of what was tried, so dead links are known from the metadata only, if at all."
        return section("links", "Links", absent(words))
    statuses = _counted(connection, "SELECT coalesce(status, 'no status') FROM attempts")
    names = {"success": "downloaded", "failed_to_download": "not downloaded", "failed_to_resize": "not resized"}
    drawn = bars("What became of the links", [(names.get(s, s)[:15], n, f"{n:,}") for s, n in statuses])
    told = "SELECT coalesce(nullif(error, ''), status) FROM attempts WHERE status <> 'success'"
    errors = [[error, f"{n:,}"] for error, n in _counted(connection, told)]
    why = data_table(["the commonest reasons why they failed", "links"], errors) if errors else ""
    return section("links", "Links", figures(figure("What became of the links", drawn)), why)


def _shards(connection: duckdb.DuckDBPyConnection) -> str:
    share = "100.0 * samples / greatest(attempted, 1)"
    known = _bins(connection, "shards", {"shards": f"CASE WHEN attempted > 0 THEN {share} END"})
    sizes = _bins(connection, "shards", {"shards": "samples"})
    drawn = [figure("Samples in a shard", histogram("Samples in a shard", sizes, "samples", "shards"), sizes.words)]
    if known.counts:
        title = "Share of a shard's links that became samples"
        drawn.append(figure(title, histogram(title, known, "%", "shards"), known.words))
    worst = connection.execute(
        "SELECT shard, samples, rejects, attempted FROM shards ORDER BY rejects DESC, samples, shard LIMIT 10"
    ).fetchall()
    cells = [[row[0], *(f"{value:,}" if value is not None else "–" for value in row[1:])] for row in worst]
    table = folded("The ten worst shards", data_table(["shard", "samples", "rejected", "tried"], cells))
    return section("shards", "Shards", figures(*drawn), table)


def _tables(directory: Path) -> str:
    words = (
        f"The tables behind this page are Parquet files in {directory}: findings (a row for each thing found: kind, "
        "shard, member, uid, detail), samples, attempts, metadata and shards. Any tool that reads Parquet can ask "
        "them; DuckDB, say, for the links to try again:"
    )
    example = f"SELECT uid, shard, detail FROM '{directory}/findings.parquet' WHERE kind = 'dead_link'"
    return section("tables", "Ask more", paragraph(words), f"<p><code>{text(example)}</code></p>")


def _bins(connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, str]) -> Bins:
    """Histograms of some columns over common bins."""
    return bin_values(lambda sql: connection.execute(sql).fetchall(), table, columns)


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
