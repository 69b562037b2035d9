"""Census tables: the units' files joined into `shards`, `samples`, `attempts`, `metadata` and `findings`.

`findings` has a row for each thing found: what one unit saw, and what only shows when all are put together (uids and
pictures that come twice, links that died, contents that drifted, rows nobody tried, numbers without a tar). Everything
is joined by uid. Shards come in the order of the pool, samples sorted by uid, findings by kind, shard, member and uid.

Cost: DuckDB joins and sorts over some 100 bytes a sample, in 1 GiB, the rest spilled to the census's directory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.census.files import FileUnit
from tasks.census.shards import CensusUnit, finding
from tasks.census.sidecars import ATTEMPTS, METADATA
from tasks.files.artefacts import publishing, read_json
from tasks.pool.validation import DAMAGE, REASONS
from tasks.tables.published import write_parquet
from tasks.tables.schemas import TARGET_PICTURES
from tasks.tables.sql_names import SETTINGS, literal, parquet

CENSUS: dict[str, Any] = {**SETTINGS, "memory_limit": "1GiB", "threads": "2", "preserve_insertion_order": "true"}
SHARDS = pa.schema(
    [
        ("shard", pa.string()),
        ("number", pa.int64()),
        ("bytes", pa.int64()),
        ("has_tar", pa.bool_()),
        ("has_table", pa.bool_()),
        ("has_stats", pa.bool_()),
        ("names_uids", pa.bool_()),
        ("samples", pa.int64()),
        ("rejects", pa.int64()),
        ("attempted", pa.int64()),
        ("successes", pa.int64()),
    ]
)
FOUND = pa.schema([(name, pa.string()) for name in ("kind", "shard", "member", "uid", "detail")])
SPARSE = 1000
"""Numbers a shard beyond which a pool's names are dates or the like: gaps are then one finding, not one each."""

FOLDER = "regexp_replace(shard, '[^/]*$', '')"
"""A shard's folder: what was downloaded at once, with tables and stats or without."""
# What shows only when all is put together: kind, shard, member, uid, detail.
JOINED = {
    "missing_uid": """SELECT shard, key, uid, 'none of the shard''s samples names one, those of other shards do'
        FROM samples WHERE shard IN (SELECT shard FROM shards WHERE NOT names_uids)
        AND (SELECT bool_or(names_uids) FROM shards)""",
    "duplicate_uid": """SELECT shard, key, uid, 'first seen in ' || first_shard || ', key ' || first_key FROM (
        SELECT s.shard, key, uid, row_number() OVER w AS n, first(s.shard) OVER w AS first_shard,
            first(key) OVER w AS first_key
        FROM samples s JOIN places USING (shard) WINDOW w AS (PARTITION BY uid ORDER BY place, key)) WHERE n > 1""",
    "duplicate_image": """SELECT shard, key, uid, 'the same as uid ' || replace(first_uid::VARCHAR, '-', '') FROM (
        SELECT s.shard, key, uid, row_number() OVER w AS n, first(uid) OVER w AS first_uid
        FROM samples s JOIN places USING (shard)
        WINDOW w AS (PARTITION BY image_hash ORDER BY uid, place, key)) WHERE n > 1 AND uid <> first_uid""",
    "tested_on": """SELECT s.shard, s.key, s.uid, t.name || ': ' || t.place FROM samples s JOIN (
        SELECT digest, min(name) AS name, min(place) AS place FROM pictures WHERE role <> 'target' GROUP BY digest
        ) t ON t.digest = s.pixel_hash""",
    "dead_link": """SELECT shard, key, uid, concat_ws(': ', status, error) FROM attempts WHERE status <> 'success'
        OR status IS NULL""",
    "sha256_drift": """SELECT s.shard, s.key, uid, 'crawled ' || left(lower(hex(m.sha256)), 12) || ', downloaded ' ||
        left(lower(hex(s.sha256)), 12) FROM samples s JOIN (SELECT uid, any_value(sha256) AS sha256 FROM metadata
        GROUP BY uid) m USING (uid) WHERE m.sha256 <> s.sha256""",
    "no_metadata": """SELECT shard, key, uid, '' FROM samples ANTI JOIN metadata USING (uid)
        WHERE EXISTS (FROM metadata)""",
    "metadata_duplicate": """SELECT any_value(file), '', uid, count(*)::VARCHAR || ' rows'
        FROM metadata GROUP BY uid HAVING count(*) > 1""",
    "not_attempted": """SELECT '', '', uid, 'in ' || file FROM metadata
        ANTI JOIN attempts USING (uid) ANTI JOIN samples USING (uid)
        WHERE EXISTS (FROM attempts) AND NOT EXISTS (FROM attempts WHERE uid IS NULL)""",
    "missing_tar": "SELECT shard, '', NULL, '' FROM shards WHERE NOT has_tar",
    "missing_stats": f"""SELECT shard, '', NULL, '' FROM shards WHERE NOT has_stats AND has_tar
        AND {FOLDER} IN (SELECT {FOLDER} FROM shards WHERE has_stats)""",
    "missing_table": f"""SELECT shard, '', NULL, '' FROM shards WHERE NOT has_table AND has_tar
        AND {FOLDER} IN (SELECT {FOLDER} FROM shards WHERE has_table)""",
    "missing_npz": "SELECT file, '', NULL, '' FROM files WHERE NOT has_npz AND (SELECT bool_or(has_npz) FROM files)",
}
# Without shard tables nobody says why a row of the metadata has no sample; it is a dead link all the same.
UNTOLD = """SELECT '', '', uid, 'no sample, and no table of the shard that says why' FROM metadata
    ANTI JOIN samples USING (uid) WHERE NOT EXISTS (FROM attempts)"""


def write_census_tables(
    directory: Path,
    shards: Sequence[CensusUnit],
    files: Sequence[FileUnit],
    pictures: Path | None = None,
    beside: Sequence[dict[str, Any]] = (),
) -> tuple[dict[str, int], dict[str, int]]:
    """Write the tables; returns totals (rows of each sort) and the number of findings by kind.

    ``pictures``: those of the catalog's target and tests (`target_check`). ``beside``: findings on what no unit reads.
    """
    markers = [read_json(unit.path("marker")) for unit in shards]
    file_markers = [read_json(unit.marker) for unit in files]
    shard_rows = [marker["shard"] for marker in markers]
    found = [row for marker in (*markers, *file_markers) for row in marker["findings"]]
    found += [*beside, *_gaps(shard_rows)]
    with duckdb.connect(":memory:", config=CENSUS) as connection:
        connection.execute(f"SET temp_directory = {literal(directory / 'spill')}")
        connection.register("shards", pa.Table.from_pylist(shard_rows, SHARDS))
        connection.register("files", _files([marker["file"] for marker in file_markers]))
        connection.register("seen", _found(found))
        connection.execute("CREATE TABLE places AS SELECT shard, row_number() OVER () AS place FROM shards")
        _view(connection, "samples", [unit.path("samples") for unit in shards])
        attempts = [unit.path("attempts") for unit in shards if unit.path("attempts").exists()]
        _view(connection, "attempts", attempts or [_empty(directory, "attempts", ATTEMPTS)])
        parts = [unit.part for unit in files]
        _view(connection, "metadata", parts or [_empty(directory, "metadata", METADATA)])
        _view(connection, "pictures", [pictures or _empty(directory, "pictures", TARGET_PICTURES)])
        connection.execute(f"CREATE TEMP TABLE findings AS {_findings_sql()}")
        for table, order in (
            ("samples", "uid, shard, key"),
            ("attempts", "uid, shard, key"),
            ("metadata", "uid, file"),
        ):
            _copy(connection, f"FROM {table} ORDER BY {order}", directory / f"{table}.parquet")
        _copy(connection, "FROM findings ORDER BY kind, shard, member, uid, detail", directory / "findings.parquet")
        totals = _totals(connection, shard_rows, found)
        kinds = connection.execute("SELECT kind, count(*) FROM findings GROUP BY kind ORDER BY kind").fetchall()
    with publishing(directory / "shards.parquet") as file:
        write_parquet(file, pa.Table.from_pylist(shard_rows, SHARDS))
    return totals, dict(kinds)


def _findings_sql() -> str:
    joined = [
        f"SELECT '{kind}' AS kind, * FROM ({sql}) AS found(shard, member, uid, detail)" for kind, sql in JOINED.items()
    ]
    joined.append(f"SELECT 'dead_link', * FROM ({UNTOLD})")
    seen = "SELECT kind, shard, member, uid::UUID AS uid, detail FROM seen"
    return " UNION ALL ".join([seen, *joined])


def _totals(
    connection: duckdb.DuckDBPyConnection, shard_rows: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]
) -> dict[str, int]:
    counts = {}
    for table in ("samples", "attempts", "metadata", "files"):
        (counts[table],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
    counts["shards"] = sum(row["has_tar"] for row in shard_rows)
    counts["rejects"] = sum(row["reason"] in REASONS and row["reason"] not in DAMAGE for row in found)
    counts["bytes"] = sum(row["bytes"] or 0 for row in shard_rows)
    return counts


def _gaps(shard_rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Numbers from 0 to the last that no shard of a folder has, for folders whose tars are numbered."""
    numbers: dict[str, set[int | None]] = {}
    for row in shard_rows:
        numbers.setdefault(row["shard"].rpartition("/")[0], set()).add(row["number"])
    return [gap for folder, there in numbers.items() if None not in there for gap in _gaps_of(folder, there)]


def _gaps_of(folder: str, numbers: Collection[Any]) -> list[dict[str, Any]]:
    last, place = max(numbers), f"in {folder}" if folder else ""
    if last > SPARSE * len(numbers):
        told = f"only {len(numbers):,} of these numbers have a shard {place}".strip()
        return [finding("gap", "", f"0 to {last}", detail=told)]
    return [finding("gap", "", str(number), detail=place) for number in range(last) if number not in numbers]


def _found(rows: Sequence[dict[str, Any]]) -> pa.Table:
    columns = {name: [row["reason" if name == "kind" else name] for row in rows] for name in FOUND.names}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _files(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(
        list(rows), pa.schema([("file", pa.string()), ("rows", pa.int64()), ("has_npz", pa.bool_())])
    )


def _view(connection: duckdb.DuckDBPyConnection, name: str, paths: Sequence[Path]) -> None:
    connection.execute(f"CREATE VIEW {name} AS FROM {parquet(paths)}")


def _empty(directory: Path, name: str, schema: pa.Schema) -> Path:
    path = directory / "parts" / f"no-{name}.parquet"
    with publishing(path) as file:
        pq.write_table(schema.empty_table(), file)
    return path


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, path: Path) -> None:
    with publishing(path) as file:
        connection.execute(
            f"COPY ({sql}) TO {literal(file.name)} (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)"
        )
