"""Candidates: the table `samples` that filters choose from, of a pool, of a run, or of metadata without any tars.

* a pool: its samples table, with the columns that the pool and its metadata brought along;
* a run: the same, and the run's other tables and all views besides (`queries`), so that a filter can ask for g;
* metadata: DataComp's Parquet files as they were downloaded, before any picture is. What is chosen may hold dead links.

DuckDB works within MEMORY and spills into a directory of its own, which goes when the candidates are closed. Filters
reach no other file (`sql_locks`), unless `allow_files`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from mgd_core.errors import UserError
from tasks.files.artefacts import digest, file_digest
from tasks.files.file_forms import form_of_file
from tasks.files.remote_files import Reader
from tasks.files.scratch import scratch
from tasks.files.untrusted_parquet import Unreadable, parquet_columns
from tasks.pool.metadata import check_uid_type
from tasks.pool.record import PoolRecord
from tasks.tables.queries import connect
from tasks.tables.sql_locks import lock
from tasks.tables.sql_names import SETTINGS, parquet
from tasks.tables.table_views import samples_select

MEMORY = "3GiB"


class CandidatesError(UserError, ValueError):
    """There is nothing to choose from; says what was looked for."""


@dataclass(frozen=True)
class Candidates:
    """An open DuckDB connection with `samples`, and what these are: a name, and a digest of their contents."""

    connection: duckdb.DuckDBPyConnection
    home: Path
    name: str
    digest: str
    columns: dict[str, str]
    """Columns of `samples` and their types in DuckDB."""


@contextmanager
def pool_candidates(home: Path, pool: PoolRecord, allow_files: bool = False) -> Iterator[Candidates]:
    """The samples of a finished pool."""
    columns, source = samples_select(pool.samples_path)
    with settings_of(home) as settings, duckdb.connect(":memory:", config=settings) as connection:
        connection.execute(f"CREATE VIEW samples AS SELECT {columns} FROM {source}")
        if not allow_files:
            lock(connection, [pool.samples_path])
        yield _candidates(connection, home, pool.pool_id, pool.samples_digest)


@contextmanager
def run_candidates(home: Path, run: str, pool: PoolRecord, allow_files: bool = False) -> Iterator[Candidates]:
    """The samples of a run, beside its tables and views."""
    with settings_of(home) as settings, connect(home, run, allow_files, settings) as connection:
        yield _candidates(connection, home, run, pool.samples_digest)


@contextmanager
def metadata_candidates(home: Path, paths: Sequence[Path], allow_files: bool = False) -> Iterator[Candidates]:
    """The rows of DataComp's metadata: Parquet files, or directories of them (whose .npz files are passed over).

    Raises CandidatesError where there is none, or one has no uid.
    """
    files = [file for path in paths for file in (sorted(path.glob("**/*.parquet")) if path.is_dir() else [path])]
    if not files:
        raise CandidatesError(f"no *.parquet in {', '.join(map(str, paths))}")
    for file in files:
        columns = _columns(file)
        if "uid" not in columns:
            raise CandidatesError(f"{file}: no column uid, only {', '.join(columns)}; this is not DataComp's metadata")
        check_uid_type(str(file), columns["uid"])
    with settings_of(home) as settings, duckdb.connect(":memory:", config=settings) as connection:
        uid = "lpad(lower(replace(uid::VARCHAR, '-', '')), 32, '0')::UUID AS uid"
        _check_uids(connection, files)
        connection.execute(f"CREATE VIEW samples AS SELECT {uid}, * EXCLUDE (uid) FROM {_parquet(files)}")
        if not allow_files:
            lock(connection, files)
        content = digest([file_digest(file) for file in files])
        yield _candidates(connection, home, ", ".join(map(str, paths)), content)


def _columns(file: Path) -> dict[str, pa.DataType]:
    try:
        return parquet_columns(str(file), Reader())
    except Unreadable as error:
        looks = "" if form_of_file(file) == "Parquet" else form_of_file(file)
        raise CandidatesError(f"{error}{looks and '; it is '}{looks}. Metadata is Parquet with a column uid") from error


@contextmanager
def settings_of(home: Path) -> Iterator[dict[str, Any]]:
    """Settings of a connection within MEMORY that gives and takes uids as 16 bytes; what it spills goes at the end."""
    with scratch(home, "duckdb") as spill:
        yield SETTINGS | {
            "memory_limit": MEMORY,
            "temp_directory": str(spill),
            "arrow_lossless_conversion": True,
        }


def _candidates(connection: duckdb.DuckDBPyConnection, home: Path, name: str, content: str) -> Candidates:
    try:
        columns = {row[0]: row[1] for row in connection.execute("DESCRIBE samples").fetchall()}
    except duckdb.Error as error:
        raise CandidatesError(f"{name}: its samples cannot be read: {error}") from error
    return Candidates(connection, home, name, content, columns)


def _check_uids(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> None:
    """Raise CandidatesError, naming file and row, where a row has no uid or what is none."""
    text = "lower(replace(uid::VARCHAR, '-', ''))"
    for file in files:
        sql = f"""SELECT count(*), any_value(uid) FROM (SELECT uid::VARCHAR AS uid
            FROM {_parquet([file])} WHERE uid IS NULL OR NOT regexp_full_match({text}, '[0-9a-f]{{1,32}}'))"""
        try:
            number, example = connection.execute(sql).fetchone() or (0, None)
        except duckdb.Error as error:
            raise CandidatesError(f"{file}: cannot be read ({' '.join(str(error).split())[:300]})") from error
        if number:
            seen = "nothing" if example is None else repr(example)
            raise CandidatesError(f"{file}: {number:,} rows have no uid of up to 32 hex digits, but {seen}, say")


def _parquet(paths: Sequence[Path]) -> str:
    return parquet(paths, f", union_by_name = {str(len(paths) > 1).lower()}")
