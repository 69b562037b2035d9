"""Queries: a run's tables and views in DuckDB, in memory, over the published Parquet files.

`connect` reads the runs' lists of published files and makes a view of each table (with `run` and `round`
columns), then the views of `catalogs/views`, then two tables that explain them: `views` (what there is to
ask) and `columns` (what each column means). There is no database file, no lock, no network and no extension.
A connection sees what was published when it was opened.

Cost: the footers of the samples files are read on opening; queries read only the columns that they name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from tasks.artefacts import reading
from tasks.lineups import Lineup
from tasks.schemas import OPEN, PARTITIONS, SHOWS, TABLES, doc_of
from tasks.tables import files, runs
from tasks.views import View, expand, load_views, quoted

ALL = "all"
SQL_TYPES = {
    pa.uuid(): "UUID",
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
}


class QueryError(UserError, ValueError):
    """A question that cannot be answered; the message is for the person who asked it."""


@contextmanager
def asking() -> Iterator[None]:
    """DuckDB is asked in the block: what it complains of, a damaged file say, becomes a QueryError."""
    try:
        yield
    except duckdb.Error as error:
        raise QueryError(str(error).partition("\n\nLINE ")[0].strip()) from error


@asking()
def connect(home: str | Path, run: str | None = None) -> duckdb.DuckDBPyConnection:
    """A connection with a view of every table, the views of `catalogs/views`, and the tables `views` and
    `columns`.

    `run` is one run, "all", or None for the one that published last. Raises QueryError when there is no such
    run.
    """
    chosen = _choose(Path(home), run)
    settings: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    connection = duckdb.connect(":memory:", config=settings)
    docs = {table: _create_table_view(connection, Path(home), chosen, table) for table in TABLES}
    upstream = [name for name in docs["samples"] if name not in {*TABLES["samples"].names, *PARTITIONS}]
    own = ", ".join(quoted(name) for name in docs["samples"] if name not in {*PARTITIONS, "uid"})
    lineup = Lineup.of(Path(home), chosen[0], own) if len(chosen) == 1 else None
    quicker = lineup.views() if lineup else {}
    shown = [replace(view, sql=quicker.get(view.name, view.sql)) for view in expand(load_views(), ["text", *upstream])]
    left_out = _create_views(connection, shown, {f"{table}.{name}" for table in docs for name in docs[table]})
    _explain(connection, docs, shown, left_out)
    return connection


def _choose(home: Path, run: str | None) -> list[str]:
    known = runs(home)
    if not known:
        raise QueryError(f"{home}: no run has published a table yet; start one with `mgd curate CATALOG --home {home}`")
    if run == ALL:
        return known
    if run is None:
        return known[-1:]
    if run not in known:
        near = get_close_matches(run, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise QueryError(f"{home}: no run {run!r}{hint}. The runs are {', '.join(known)}, or all for all of them")
    return [run]


def _create_table_view(
    connection: duckdb.DuckDBPyConnection, home: Path, chosen: list[str], table: str
) -> dict[str, str]:
    """Make the view of one table; returns the sentence on each of its columns."""
    paths = [path for run in chosen for path in files(home, run, table).values()]
    fields = [pa.field(name, kind, True, {b"doc": doc.encode()}) for name, (kind, doc) in PARTITIONS.items()]
    fields += [*TABLES[table], *(_upstream_fields(paths, table) if table in OPEN else [])]
    if paths:
        names = ", ".join(quoted(field.name) for field in fields)
        select = f"SELECT {names} FROM {_read_parquet(paths, table)}"
    else:
        typed = ", ".join(f"NULL::{SQL_TYPES[field.type]} AS {quoted(field.name)}" for field in fields)
        select = f"SELECT {typed} WHERE false"
    connection.execute(f"CREATE VIEW {quoted(table)} AS {select}")
    return {field.name: doc_of(field) for field in fields}


def _read_parquet(paths: Iterable[Path], table: str) -> str:
    listed = ", ".join("'" + str(path.resolve()).replace("'", "''") + "'" for path in paths)
    types = ", ".join(f"{quoted(name)}: {SQL_TYPES[kind]}" for name, (kind, _) in PARTITIONS.items())
    # Only where files may differ in columns: every footer is read for it.
    by_name = "true" if table in OPEN else "false"
    options = f"hive_partitioning = true, hive_types = {{{types}}}, union_by_name = {by_name}"
    return f"read_parquet([{listed}], {options})"


def _upstream_fields(paths: Iterable[Path], table: str) -> list[pa.Field]:
    """Fields that the files have beyond the table's own, each once."""
    found: dict[str, pa.Field] = {}
    for path in paths:
        with reading(path):
            schema = pq.read_schema(path)
        for field in schema:
            if field.name not in TABLES[table].names:
                found.setdefault(field.name, field)
    return list(found.values())


def _create_views(connection: duckdb.DuckDBPyConnection, views: list[View], known: set[str]) -> dict[str, str]:
    """Make the views whose needs are met, after those they need; returns why each of the others is left
    out."""
    waiting, known = list(views), set(known)
    while ready := [view for view in waiting if not view.unmet(known)]:
        for view in ready:
            connection.execute(view.sql)
            known.add(view.name)
        waiting = [view for view in waiting if view not in ready]
    return {view.name: f"left out: the run has no {', '.join(view.unmet(known))}" for view in waiting}


def _explain(
    connection: duckdb.DuckDBPyConnection,
    docs: dict[str, dict[str, str]],
    views: list[View],
    left_out: dict[str, str],
) -> None:
    """Make the tables `views` and `columns`. A view's column without a sentence of its own takes the table
    column's."""
    connection.execute('CREATE TABLE "views" ("name" VARCHAR, kind VARCHAR, shows VARCHAR, missing VARCHAR)')
    rows: list[tuple[str, str, str, str | None]] = [(table, "table", SHOWS[table], None) for table in docs]
    rows += [(view.name, "view", view.doc, left_out.get(view.name)) for view in views]
    connection.executemany('INSERT INTO "views" VALUES (?, ?, ?, ?)', rows)
    inherited = {name: doc for table in docs.values() for name, doc in table.items()}
    told = dict(docs)
    for view in sorted(views, key=lambda view: len(view.needs)):
        needed = [told.get(need, {}) for need in view.needs]
        told[view.name] = {**inherited, **{k: v for one in needed for k, v in one.items()}, **view.columns}
    described = connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
        "ORDER BY table_oid, column_index"
    ).fetchall()
    connection.execute('CREATE TABLE "columns" ("table" VARCHAR, "column" VARCHAR, "type" VARCHAR, doc VARCHAR)')
    entries = [(table, name, kind, told[table].get(name, "")) for table, name, kind in described if table in told]
    connection.executemany('INSERT INTO "columns" VALUES (?, ?, ?, ?)', entries)
