"""Tables: Parquet files published atomically, and the one list of what is published.

A table's rows of one run and round are one file,
`<home>/tables/<table>/run=<run>/round=<r>/<digest>.parquet`: sorted by uid where there is one, checked
against `schemas`, written outside the tables' tree, and renamed in under the digest of its bytes. Then the
run's list, `<home>/tables/_manifests/<run>.json`, is swapped by rename. Readers take files from that list and
never from a directory listing, so a torn or half-published part is never seen. Publishing equal rows again
changes nothing.

The list says by which version of which table's schema a part was written, and by which version of this program; the
part itself does not, so that equal rows are equal bytes whoever writes them. A part of a newer schema than this program
knows is told, not read.

Several processes or threads may publish for one run: the list changes under an flock. It does not remove what
a newer version of a round replaced, because a reader may still hold the old list.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from tasks.files.artefacts import file_digest, move_in, publish_json, read_json, reading, staged
from tasks.files.package_data import product
from tasks.homes.working_copies import at_hand, removed
from tasks.tables.schemas import BY_UID, FORMER, GROWN, OPEN, PARTITIONS, TABLES, doc_of, upstream_field, version_of
from tasks.tables.uids import first_repeat, uid_array, uid_bytes, uid_hex

VERSION = 1
ROW_GROUP = 1 << 20
"""Rows of a row group; what a table is read and written by where it is too large for memory."""
PARQUET: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "write_page_index": True}
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class TableError(UserError, ValueError):
    """Rows that must not be published, or a table that is not there; the message says which and why."""


class NewerTable(TableError):
    """A table that a newer version of this program wrote, in a form that this one does not know."""


def publish(home: str | Path, run: str, table: str, round: int, rows: pa.Table) -> None:
    """Publish the rows of one table, run and round, in place of any earlier version.

    Raises TableError when the rows do not fit the table's schema, a uid comes twice, or a number is not
    finite.
    """
    with publishing_part(home, run, table, round) as part:
        rows = conform(table, rows)
        write_parquet(part.file, rows)
        part.count(table, rows)


@dataclass
class Part:
    """A table's file that is being written: an open Parquet file, how many rows it has, and their uids."""

    file: BinaryIO
    rows: int = 0
    uids: Any = None

    def count(self, table: str, rows: pa.Table) -> None:
        """Take note of rows that were written."""
        self.rows += rows.num_rows
        if table in BY_UID:
            self.uids = self.uids or blake2b(digest_size=16)
            self.uids.update(uid_bytes(rows["uid"]).view(np.uint8).data)


@contextmanager
def publishing_part(home: str | Path, run: str, table: str, round: int) -> Iterator[Part]:
    """A file to write that is published, in place of any earlier version, when the block ends well.

    Raises TableError for names that cannot be.
    """
    home = Path(home)
    _known(table)
    if not RUN_ID.fullmatch(run) or round < 0:
        raise TableError(f"run {run!r}, round {round}: a run's name is letters, digits, . _ - and a round is 0 or more")
    # Outside the tables' tree, yet on the same file system.
    with staged(home / ".staging", f"{table}-{run}-{round}") as file:
        part = Part(file)
        yield part
        file.flush()
        content, size = file_digest(file.name), file.tell()
        directory = _directory(table, run, round)
        path = home / "tables" / directory / f"{content}.parquet"
        if not (path.exists() and path.stat().st_size == size):
            move_in(file, path)
    entry = {"path": f"{directory}/{content}.parquet", "rows": part.rows, "bytes": size, "digest": content}
    entry |= {"schema": version_of(table), "mgd": product()}
    if part.uids is not None:
        entry["uids"] = part.uids.hexdigest()
    _enter(home, run, table, round, entry)


def files(home: str | Path, run: str, table: str) -> dict[int, Path]:
    """The published file of each round of one table, in the order of the rounds; empty if there is none.

    Raises NewerTable where one of them is of a newer schema, TableError or DamagedRecord where the list cannot be read.
    """
    _known(table)
    with reading(_manifest_path(Path(home), run)):
        entries = _manifest(Path(home), run)["tables"].get(table, {})
        for entry in entries.values():
            if entry.get("schema", 1) > version_of(table):
                raise _newer(f"{table} of run {run}", entry.get("mgd"), entry["schema"], version_of(table))
        return {int(r): Path(home) / "tables" / entries[r]["path"] for r in sorted(entries, key=int)}


def counts_file(home: str | Path, run: str, round: int) -> Path | None:
    """The counts that a run's round trains on, as a subset file: the published table; None where there is none yet.

    Earlier versions wrote a file beside it, which names the choice wherever one was begun from it: that one, then.
    """
    former = Path(home) / "runs" / run / "manifests" / f"round-{round:03d}.parquet"
    at_hand(former)
    found = former if former.exists() else files(home, run, "counts").get(round)
    if found is not None:
        at_hand(found)
    return found


def uids_of(home: str | Path, run: str, table: str) -> dict[int, str]:
    """Digest of the uids of each round of one table: files with equal ones have the same samples in the same order."""
    _known(table)
    entries = _manifest(Path(home), run)["tables"].get(table, {})
    return {int(r): str(entry.get("uids", "")) for r, entry in entries.items()}


def read(
    home: str | Path, run: str, table: str, round: int | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of one round (of these `columns` of it); of all rounds, with a `round` column in front, when `round` is
    None.

    Raises TableError when that round, or (for None) every round, is unpublished.
    """
    found = files(home, run, table)
    if round is not None:
        if round not in found:
            raise TableError(f"{home}: run {run!r} has no {table} for round {round}; published rounds: {list(found)}")
        return _in_present_names(table, read_parquet(found[round], columns))
    if not found:
        raise TableError(f"{home}: run {run!r} has published no {table} yet")
    parts = [_with_round(_in_present_names(table, read_parquet(path)), number) for number, path in found.items()]
    return pa.concat_tables(parts, promote_options="default")


def runs(home: str | Path) -> list[str]:
    """What has published something: runs, studies, evaluations; the latest last."""
    found = [path.stem for path in (Path(home) / "tables" / "_manifests").glob("*.json")]
    return sorted(found, key=lambda run: age(home, run))


def age(home: str | Path, run: str) -> tuple[int, str]:
    """What runs are sorted by: when one began or published last, in nanoseconds, and its name. The largest is the
    latest, wherever the latest is meant."""
    records = (_manifest_path(Path(home), run), Path(home) / "runs" / run / "run.json")
    return max((path.stat().st_mtime_ns for path in records if path.exists()), default=0), run


def unlist(home: str | Path, run: str) -> None:
    """Take a run out of the listing: from now on nobody finds its tables."""
    path = _manifest_path(Path(home), run)
    with _locked(path.with_suffix(".lock")):
        removed(path)
        path.unlink(missing_ok=True)


def conform(table: str, rows: pa.Table) -> pa.Table:
    """Rows in the table's columns, order and types, sorted by uid where there is one; raises TableError if
    they do not fit."""
    result = typed(table, rows)
    return _by_uid(table, result) if table in BY_UID else result


def typed(table: str, rows: pa.Table) -> pa.Table:
    """Rows in the table's columns and types, in the order they have; raises TableError if they do not fit."""
    schema = _known(table)
    rows = _in_present_names(table, rows)
    extra = [name for name in rows.column_names if name not in schema.names]
    for field in schema:
        if table in GROWN and field.nullable and field.name not in rows.column_names:
            rows = rows.append_column(field.name, pa.nulls(rows.num_rows, field.type))
    missing = [name for name in schema.names if name not in rows.column_names]
    if missing or (extra and table not in OPEN):
        raise TableError(f"{table}: missing columns {missing}, unknown columns {extra}; the table has {schema.names}")
    columns = [_column(table, field, rows[field.name]) for field in schema]
    brought = [rows.schema.field(name) for name in extra]
    fields = list(schema) + [upstream_field(field.name, field.type, doc=doc_of(field)) for field in brought]
    result = pa.table(columns + [rows[name] for name in extra], schema=pa.schema(fields))
    _refuse_non_finite(table, result.select(schema.names))
    return result


def write_parquet(file: BinaryIO, rows: pa.Table) -> None:
    """Write a table as zstd Parquet; equal tables give equal bytes under one version of pyarrow."""
    # One chunk a column: how the rows were put together must not show in the file.
    pq.write_table(rows.combine_chunks(), file, row_group_size=ROW_GROUP, **PARQUET)


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The columns of a Parquet file, all or those named, and nothing else.

    Not `pq.read_table`, which makes a column of every directory on the way that is called like `seed=9`.
    """
    at_hand(Path(path))
    with reading(path), pq.ParquetFile(path) as file:
        # Asked for `text`, Parquet gives `text.en` as well.
        return file.read() if columns is None else file.read(list(columns)).select(list(columns))


def _column(table: str, field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if column.null_count and not field.nullable:
        raise TableError(f"{table}.{field.name}: {column.null_count} of {len(column)} values are missing")
    if field.type == pa.uuid():
        return uid_array(column)
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise TableError(f"{table}.{field.name}: {column.type} does not fit {field.type}: {error}") from error


def _refuse_non_finite(table: str, rows: pa.Table) -> None:
    for field in rows.schema:
        if not pa.types.is_floating(field.type):
            continue
        bad = pc.invert(pc.is_finite(pc.fill_null(rows[field.name], 0.0)))
        count = pc.sum(bad).as_py() or 0
        if count:
            first = rows.filter(bad).slice(0, 1)
            whose = f", first at uid {uid_hex(first['uid'])[0]}" if "uid" in rows.column_names else ""
            raise TableError(
                f"{table}.{field.name}: {count:,} of {rows.num_rows:,} values are NaN or infinite{whose}. "
                "Nothing was published. The training or its reverse traversal left the range of its numbers: "
                "lower the learning rate, raise eps_root, or use a wider dtype"
            )


def _by_uid(table: str, rows: pa.Table) -> pa.Table:
    uids = uid_bytes(rows["uid"])
    order = np.argsort(uids, kind="stable")
    repeat = first_repeat(uids[order])
    if repeat is not None:
        raise TableError(
            f"{table}: uid {uid_hex(uids[order[repeat : repeat + 1]])[0]} comes twice; give one row a sample"
        )
    return rows.take(pa.array(order))


def _known(table: str) -> pa.Schema:
    if table not in TABLES:
        raise TableError(f"no table {table!r}; the tables are {', '.join(TABLES)}")
    return TABLES[table]


def _in_present_names(table: str, rows: pa.Table) -> pa.Table:
    present = {former: name for name, former in FORMER.get(table, {}).items()}
    return rows.rename_columns([present.get(name, name) for name in rows.column_names]) if present else rows


def _with_round(rows: pa.Table, number: int) -> pa.Table:
    return rows.add_column(
        0, pa.field("round", PARTITIONS["round"][0]), pa.array(np.full(rows.num_rows, number, np.int32))
    )


def _directory(table: str, run: str, round: int) -> str:
    return f"{table}/run={run}/round={round}"


def _manifest_path(home: Path, run: str) -> Path:
    return home / "tables" / "_manifests" / f"{run}.json"


def _manifest(home: Path, run: str) -> dict[str, Any]:
    path = _manifest_path(home, run)
    if not path.exists():
        return {"version": VERSION, "run": run, "tables": {}}
    manifest = read_json(path)
    if manifest.get("version") != VERSION:
        raise _newer(str(path), manifest.get("mgd"), manifest.get("version"), VERSION)
    return manifest


def _newer(what: str, by: object, has: object, known: int) -> NewerTable:
    who = f"mgd {by}" if by else "another version of mgd"
    return NewerTable(f"{what}: version {has}, written by {who}, which has to read it; mgd {product()} reads {known}")


def _enter(home: Path, run: str, table: str, round: int, entry: dict[str, Any]) -> None:
    with _locked(_manifest_path(home, run).with_suffix(".lock")):
        manifest = _manifest(home, run)
        rounds = manifest["tables"].setdefault(table, {})
        known = rounds.get(str(round), {})
        if all(known.get(key, 1) == entry[key] for key in entry if key != "mgd"):
            return  # the same bytes again: what the list says of who wrote them stays
        rounds[str(round)] = entry
        publish_json(_manifest_path(home, run), manifest)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an flock on `path`; the kernel frees it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
