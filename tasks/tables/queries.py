"""Queries: the tables and views of a home's runs in DuckDB, in memory, over the published Parquet files.

`connect` reads the runs' lists of published files and makes a view of each table (`table_views`), of the tables of the
home's censuses (`census_views`), then the views of `catalogs/views`, then two tables that explain them: `views` (what
there is to ask) and `columns` (what each column means). There is no database file, no lock, no network and no
extension. A connection sees what was published when it was opened.

Cost: the footers of all files are read on opening; queries read only the columns that they name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import duckdb
import pyarrow as pa

from mgd_core.errors import UserError
from tasks.tables.aligned_views import AlignedViews
from tasks.tables.census_views import CENSUS, census_views, censuses
from tasks.tables.published import files, runs
from tasks.tables.schemas import PARTITIONS, SHOWS, TABLES
from tasks.tables.sql_names import SETTINGS, quoted
from tasks.tables.table_views import TableView, table_view
from tasks.tables.views import View, expand, load_views

ALL = "all"
MOST_COLUMNS = 64
"""Columns of a pool that get a view each, which costs some 10 milliseconds on opening."""


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
    home = Path(home)
    chosen = chosen_runs(home, run)
    tables = {
        table: table_view(table, [p for one in chosen for p in files(home, one, table).values()]) for table in TABLES
    }
    brought = [name for name in tables["samples"].fields if name not in {*TABLES["samples"].names, *PARTITIONS}]
    aligned = AlignedViews.of(home, chosen[0]) if len(chosen) == 1 else None
    quicker = aligned.views() if aligned else {}
    views = expand(load_views(), ["text", *brought])
    many = {*brought[MOST_COLUMNS:]}
    words = f"left out: the pool has {len(brought)} columns, more than {MOST_COLUMNS}; ask sample_rounds"
    left_out = {view.name: words for view in views if view.column in many}
    tables |= census_views(home)
    connection = duckdb.connect(":memory:", config=SETTINGS)
    for name, table in tables.items():
        connection.execute(f"CREATE VIEW {quoted(name)} AS {table.sql}")
    made = [replace(view, sql=quicker.get(view.name, view.sql)) for view in views if view.name not in left_out]
    left_out |= _create_views(connection, made)
    _explain(connection, tables, views, left_out)
    return connection


def chosen_runs(home: Path, run: str | None) -> list[str]:
    """The runs that are meant: one, "all" of them, or for None the one that published last; raises QueryError."""
    known = runs(home)
    if not known and run is None and censuses(home):
        return []
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


def _create_views(connection: duckdb.DuckDBPyConnection, views: Sequence[View]) -> dict[str, str]:
    """Make the views whose needs are met, after those they need; returns why each of the others is left
    out."""
    waiting, left_out, known = list(views), dict[str, str](), set[str]()
    for table, column, kind in _described(connection):
        known |= {table, f"{table}.{column}", f"{table}.{column} ({kind.lower()})"}
    while ready := [view for view in waiting if not view.unmet(known)]:
        for view in ready:
            try:
                connection.execute(view.sql)
            except duckdb.Error as error:
                # One question that this pool's columns do not allow must not take the others along.
                left_out[view.name] = f"left out: {' '.join(str(error).split())}"
            else:
                known.add(view.name)
        waiting = [view for view in waiting if view not in ready]
    return left_out | {view.name: f"left out: the run has no {', '.join(view.unmet(known))}" for view in waiting}


def _explain(
    connection: duckdb.DuckDBPyConnection,
    tables: Mapping[str, TableView],
    views: Sequence[View],
    left_out: Mapping[str, str],
) -> None:
    """Make the tables `views` and `columns`."""
    shows = {**SHOWS, **{name: census.shows for name, census in CENSUS.items()}}
    rows: list[tuple[str | None, ...]] = [(table, "table", shows[table], None) for table in tables]
    rows += [(view.name, "view", view.doc, left_out.get(view.name)) for view in views]
    _create_table(connection, "views", ("name", "kind", "shows", "missing"), rows)
    told, by_name = {name: table.docs for name, table in tables.items()}, {view.name: view for view in views}
    entries = [
        (of, name, kind, _sentence(of, name, told, by_name))
        for of, name, kind in _described(connection)
        if of in told or of in by_name
    ]
    _create_table(connection, "columns", ("table_name", "column_name", "type", "doc"), entries)


def _create_table(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Sequence[str], rows: Sequence[tuple[str | None, ...]]
) -> None:
    """Make a table of texts."""
    values = zip(*rows, strict=True)
    connection.register(
        "incoming", pa.table({c: pa.array(v, pa.string()) for c, v in zip(columns, values, strict=True)})
    )
    connection.execute(f"CREATE TABLE {quoted(name)} AS FROM incoming")
    connection.unregister("incoming")


def _described(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    """Table or view, column and type of all there are."""
    return connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
        "ORDER BY table_oid, column_index"
    ).fetchall()


def _sentence(of: str, column: str, told: Mapping[str, Mapping[str, str]], views: Mapping[str, View]) -> str:
    """What a column means: a view's own sentence on it, or else that of the first of its sources that has one."""
    if of not in views:
        return told.get(of, {}).get(column, "")
    sources = (_sentence(source, column, told, views) for source in views[of].sources)
    return views[of].columns.get(column) or next(filter(None, sources), "")
