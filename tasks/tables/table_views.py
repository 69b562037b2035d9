"""Table views: the published files of a table as one SELECT, in our columns, and a pool's beside them.

Files are read by the places of their columns, so no name in a file can be mistaken for another. A column that a file
lacks, because an earlier version wrote it, is null; one that was called otherwise is found under its former name.
`run` and `round` come from the end of a file's path, which is ours, and nothing is read from what stands before it. In
a table that is open to the pool's columns, those that are called like a column of ours, in this table or in a view that
shows both, are shown as `upstream_` and the name, and their sentence says so.

Cost: a look at every file's footer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from tasks.files.artefacts import reading
from tasks.tables.schemas import FORMER, OPEN, PARTITIONS, TABLES, doc_of, upstream_field
from tasks.tables.sql_names import distinct_names, literal, parquet, quoted
from tasks.tables.views import load_views

SQL_TYPES = {
    pa.uuid(): "UUID",
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.binary(16): "BLOB",
    pa.binary(32): "BLOB",
}
PUBLISHED = "/run=([^/]*)/round=([0-9]+)/[^/]*$"
"""The end of a published file's path: what the columns of PARTITIONS are, in order."""
BESIDE = ("samples", "metagradients", "counts")
"""Tables that are joined by uid: a name in any of them is ours in all."""


@dataclass(frozen=True)
class TableView:
    """A table's SELECT, and the field of each column that it has."""

    sql: str
    fields: dict[str, pa.Field]

    @property
    def docs(self) -> dict[str, str]:
        """The sentence on each column."""
        return {name: doc_of(field) for name, field in self.fields.items()}


Skip = Callable[[Path, Exception], None]
"""Takes note of a file that cannot be read and is left out."""


def table_view(table: str, paths: Sequence[Path], skip: Skip | None = None) -> TableView:
    """The view of published files of a table."""
    partitions = [pa.field(name, kind, True, {b"doc": doc.encode()}) for name, (kind, doc) in PARTITIONS.items()]
    return view_of(TABLES[table], paths, partitions, PUBLISHED, FORMER.get(table, {}), table in OPEN, skip)


def view_of(
    schema: pa.Schema,
    paths: Sequence[Path],
    partitions: Sequence[pa.Field],
    end: str,
    former: Mapping[str, str] | None = None,
    is_open: bool = False,
    skip: Skip | None = None,
) -> TableView:
    """The view of files that should have the columns of `schema`; `partitions` are read off the end of their paths, by
    the groups of the expression `end`; `former`: earlier names of columns. A file that cannot be read is an error, or
    left out and given to `skip`."""
    kinds: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    schemas: dict[tuple[tuple[str, str], ...], pa.Schema] = {}
    for path in paths:
        try:
            with reading(path):
                found = pq.read_schema(path)
        except (UserError, OSError) as error:
            if skip is None:
                raise
            skip(path, error)
            continue
        key = tuple((field.name, str(field.type)) for field in found)
        kinds.setdefault(key, []).append(path)
        schemas.setdefault(key, found)
    brought = _brought(schemas.values(), schema) if is_open else {}
    fields = [*partitions, *schema, *brought.values()]
    selects = [_select(schemas[key], of, schema, partitions, end, former or {}, brought) for key, of in kinds.items()]
    if not selects:
        selects = ["SELECT " + ", ".join(f"NULL::{_type(f)} AS {quoted(f.name)}" for f in fields) + " WHERE false"]
    return TableView(" UNION ALL ".join(selects), {field.name: field for field in fields})


def names_in_sql(stored: Iterable[str]) -> dict[str, str]:
    """What each column of a pool's samples is called in SQL; those of the samples table itself keep their names."""
    own = TABLES["samples"].names
    return distinct_names([name for name in stored if name not in own], _ours())


def samples_select(path: Path) -> tuple[str, str]:
    """What a SELECT of a samples file names, in the columns of its view but run and round, and the FROM clause."""
    found = pq.read_schema(path)
    columns = _columns(found, TABLES["samples"], {}, _brought([found], TABLES["samples"]))
    return ", ".join(columns), read_by_place([path], found.names)


def read_by_place(paths: Sequence[Path], names: Sequence[str]) -> str:
    """A FROM clause of files whose columns are `names`: c0, c1, ... and `file_path`."""
    (free,) = distinct_names(["file_path"], names).values()
    read = parquet(paths, f", filename = {literal(free)}")
    return f"{read} AS part({', '.join([*(f'c{i}' for i in range(len(names))), 'file_path'])})"


@cache
def _ours() -> frozenset[str]:
    """Names that a pool's columns must not have in SQL: those of the tables with a row a sample, and of the views that
    show a pool's columns beside their own."""
    shown = [view for view in load_views() if view.per_column or "samples.*" in view.sql]
    tables = [name for table in BESIDE for name in TABLES[table].names]
    return frozenset([*PARTITIONS, *tables, *(name for view in shown for name in view.columns)])


def _brought(schemas: Iterable[pa.Schema], own: pa.Schema) -> dict[str, pa.Field]:
    """Fields of what the files have beyond the table's own columns, under their names in SQL, each once."""
    found: dict[str, pa.Field] = {}
    for schema in schemas:
        for stored, name in names_in_sql(schema.names).items():
            field = schema.field(schema.names.index(stored))
            made = upstream_field(name, field.type, stored, doc_of(field))
            other = found.setdefault(name.casefold(), made)
            if other.type != made.type:
                found[name.casefold()] = other.with_type(_common(other.type, made.type))
    return {field.name: field for field in found.values()}


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """A type for what runs have in different types: text, but for numbers."""
    numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (one, other))
    return pa.float64() if numbers else pa.string()


def _select(
    found: pa.Schema,
    paths: Sequence[Path],
    own: pa.Schema,
    partitions: Sequence[pa.Field],
    end: str,
    former: Mapping[str, str],
    brought: Mapping[str, pa.Field],
) -> str:
    """The SELECT of files with the columns `found`."""
    columns = [
        f"regexp_extract(file_path, {literal(end)}, {group})::{_type(field)} AS {quoted(field.name)}"
        for group, field in enumerate(partitions, start=1)
    ]
    columns += _columns(found, own, former, brought)
    return f"SELECT {', '.join(columns)} FROM {read_by_place(paths, found.names)}"


def _columns(found: pa.Schema, own: pa.Schema, former: Mapping[str, str], brought: Mapping[str, pa.Field]) -> list[str]:
    """The table's columns, then those brought along, out of a file with the columns `found`."""
    called = {name.casefold(): stored for stored, name in names_in_sql(found.names).items()} if brought else {}
    there = [field.name if field.name in found.names else former.get(field.name) for field in own]
    columns = [_column(field, found, stored) for field, stored in zip(own, there, strict=True)]
    return columns + [_column(field, found, called.get(name.casefold())) for name, field in brought.items()]


def _column(field: pa.Field, found: pa.Schema, stored: str | None) -> str:
    """A column of a file under a field's name and type; nulls where the file has none."""
    at = found.names.index(stored) if stored in found.names else None
    if at is None:
        value = f"NULL::{SQL_TYPES[field.type]}" if field.type in SQL_TYPES else "NULL"
    else:
        value = f"c{at}" if found.field(at).type == field.type else f"c{at}::{_type(field)}"
    return f"{value} AS {quoted(field.name)}"


def _type(field: pa.Field) -> str:
    return SQL_TYPES.get(field.type, "VARCHAR")
