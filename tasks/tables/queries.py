"""Queries: the tables and views of a home's runs in DuckDB, in memory, over the published Parquet files.

`connect` reads the runs' lists of published files and makes a view of each table (`table_views`), of the tables of the
home's censuses (`census_views`), then the views of `catalogs/views`, then two tables that explain them: `views` (what
there is to ask, and what was left out) and `columns` (what each column means). There is no database file, no network
and no extension, and SQL reaches no file but these (`sql_locks`). A connection sees what was published when it was
opened. Of several runs, one that is damaged or newer than this program does not take the others along: it is left out,
and `views` says so.

Cost: the footers of all files are read on opening; queries read only the columns that they name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa

from mgd_core.errors import UserError
from tasks.homes.working_copies import at_hand
from tasks.tables.aligned_views import AlignedViews
from tasks.tables.census_views import CENSUS, census_views, censuses
from tasks.tables.published import NewerTable, age, files, runs
from tasks.tables.run_folders import ONLY_BEGUN, run_directories
from tasks.tables.schemas import PARTITIONS, SHOWS, TABLES
from tasks.tables.sql_locks import lock
from tasks.tables.sql_names import SETTINGS, quoted
from tasks.tables.table_views import TableView, table_view
from tasks.tables.views import View, ViewError, expand, load_views

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
def connect(
    home: str | Path,
    run: str | None = None,
    allow_files: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> duckdb.DuckDBPyConnection:
    """A connection with a view of every table, the views of `catalogs/views`, and the tables `views` and
    `columns`.

    `run` is one run, "all", or None for the latest. `allow_files`: SQL may read and write any file. `settings`: of
    DuckDB, besides ours. Raises QueryError when there is no such run.
    """
    home = Path(home)
    chosen = chosen_runs(home, run)
    found = Found(home, chosen, run == ALL)
    at_hand(*found.paths, *censuses(home))
    tables = {name: table_view(name, paths, found.skip) for name, paths in found.files.items()}
    samples = tables["samples"].fields if "samples" in tables else {}
    brought = [name for name in samples if name not in {*TABLES["samples"].names, *PARTITIONS}]
    aligned = AlignedViews.of(home, chosen[0]) if len(chosen) == 1 and not found.left_out else None
    quicker = aligned.views() if aligned else {}
    views = expand(load_views(), ["text", *brought])
    many = {*brought[MOST_COLUMNS:]}
    words = f"left out: the pool has {len(brought)} columns, more than {MOST_COLUMNS}; ask sample_rounds"
    left_out = {view.name: words for view in views if view.column in many}
    tables |= census_views(home)
    spill = {"temp_directory": str(Path(gettempdir()) / f"mgd-sql-{uuid4().hex}")}  # DuckDB makes and removes it
    connection = duckdb.connect(":memory:", config=SETTINGS | spill | dict(settings or {}))
    for name, table in tables.items():
        connection.execute(f"CREATE VIEW {quoted(name)} AS {table.sql}")
    made = [replace(view, sql=quicker.get(view.name, view.sql)) for view in views if view.name not in left_out]
    left_out |= _create_views(connection, made)
    _explain(connection, tables, views, left_out, found.left_out)
    if not allow_files:
        lock(connection, [*found.paths, *(path for one in censuses(home) for path in one.glob("*.parquet"))])
    return connection


class Found:
    """The published files of runs, by table; and, by run, what is left out because it cannot be read.

    Of one run, what is damaged is an error; of all runs, it is left out.
    """

    def __init__(self, home: Path, chosen: Sequence[str], all_runs: bool, tables: Iterable[str] = TABLES) -> None:
        self.files: dict[str, list[Path]] = {table: [] for table in tables}
        self.left_out: dict[str, list[str]] = defaultdict(list)
        self.skip = self._skip if all_runs else None
        for run in chosen:
            for table in list(self.files):
                try:
                    self.files[table] += files(home, run, table).values()
                except UserError as error:
                    newer = isinstance(error, NewerTable)
                    if not (all_runs or newer):
                        raise
                    if newer and not all_runs:
                        del self.files[table]
                    self._take(run, error)

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [path for paths in self.files.values() for path in paths]

    def _skip(self, path: Path, error: Exception) -> None:
        table = path.parents[2].name
        self.files[table] = [one for one in self.files[table] if one != path]
        self._take(path.parents[1].name.removeprefix("run="), error)

    def _take(self, run: str, error: Exception) -> None:
        if str(error) not in self.left_out[run]:
            self.left_out[run].append(str(error))


def chosen_runs(home: Path, run: str | None) -> list[str]:
    """The runs that are meant: one, "all" of them, or for None the latest; raises QueryError."""
    known = runs(home)
    if not known and run is None and censuses(home):
        return []
    if not known:
        raise QueryError(f"{home}: no run has published a table yet; start one with `mgd curate CATALOG --home {home}`")
    if run == ALL:
        return known
    if run is None:
        latest = max([*known, *(path.name for path in run_directories(home))], key=lambda one: age(home, one))
        if latest not in known:
            raise QueryError(f"run {latest} {ONLY_BEGUN}: {', '.join(known)}")
        return [latest]
    if run not in known:
        near = get_close_matches(run, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise QueryError(f"{home}: no run {run!r}{hint}. The runs are {', '.join(known)}, or all for all of them")
    return [run]


def left_out(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """A sentence on each run that a connection leaves out, wholly or in part."""
    return [row[0] for row in connection.execute("SELECT missing FROM views WHERE kind = 'run'").fetchall()]


def _create_views(connection: duckdb.DuckDBPyConnection, views: Sequence[View]) -> dict[str, str]:
    """Make the views whose needs are met, after those they need; returns why each of the others is left
    out."""
    waiting, left_out, known = list(views), dict[str, str](), set[str]()
    for table, column, kind in _described(connection):
        known |= {table, f"{table}.{column}", f"{table}.{column} ({kind.lower()})"}
    while ready := [view for view in waiting if not view.unmet(known)]:
        for view in ready:
            try:
                if len(connection.extract_statements(view.sql)) != 1:
                    raise ViewError(f"view {view.name}: more than one statement")
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
    runs_left_out: Mapping[str, Sequence[str]],
) -> None:
    """Make the tables `views` and `columns`."""
    shows = {**SHOWS, **{name: census.shows for name, census in CENSUS.items()}}
    rows: list[tuple[str | None, ...]] = [(table, "table", shows[table], None) for table in tables]
    rows += [(view.name, "view", view.doc, left_out.get(view.name)) for view in views]
    rows += [(run, "run", "", f"run {run} is left out: {'; '.join(why)}") for run, why in runs_left_out.items()]
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
