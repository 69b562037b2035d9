"""Joining the parts of a pool into its samples table, however many samples there are.

DuckDB finds in one window query which sample of each uid is the first, in the order of the shards, and sorts those by
uid. Then the types of the upstream columns are read off all of them, and the table is written stretch by stretch, each
with its rows of the metadata, which wait in files on disk.

Cost: about 2 GiB of memory, and 24 bytes a sample where there is metadata; the parts once more on disk, and the
metadata's matching rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.files.remote_files import Reader
from tasks.pool.json_columns import Kinds, spread
from tasks.pool.metadata import add_metadata, metadata_rows
from tasks.tables.published import conform, typed, write_parquet
from tasks.tables.sql_names import SETTINGS, literal, parquet
from tasks.tables.streams import RowWriter
from tasks.tables.uids import uid_bytes

STRETCH = 1 << 16
"""Samples that are put together at once, about 3 kB of memory each while their json texts are parsed."""
WAITING = 1 << 20
"""Rows of metadata that are put into one file."""
MEMORY = "1GiB"
Placed: TypeAlias = tuple[pa.Table, np.ndarray]
"""Rows of metadata, and the ascending positions of their samples."""
REPEATED = """CREATE TABLE repeated AS
    SELECT file_index, file_row_number, replace(uid::VARCHAR, '-', '') AS uid, shard, key,
    first(shard) OVER alike AS first_shard, first(key) OVER alike AS first_key FROM {parts}
    WINDOW alike AS (PARTITION BY uid ORDER BY file_index, file_row_number) QUALIFY row_number() OVER alike > 1"""
KEPT = "SELECT * FROM {parts} ANTI JOIN repeated USING (file_index, file_row_number) ORDER BY uid"
TOLD = "SELECT uid, shard, key, first_shard, first_key FROM repeated ORDER BY file_index, file_row_number"


class Repeat(NamedTuple):
    """A later sample of a uid (32 hex digits), and where the first one is."""

    uid: str
    shard: str
    key: str
    first_shard: str
    first_key: str


class Joined(NamedTuple):
    """How many samples were written, those that came again, and how many have no metadata (None: there is none)."""

    samples: int
    repeats: list[Repeat]
    missing: int | None


def join_parts(parts: Sequence[Path], metadata: Sequence[str], reader: Reader, work: Path, out: BinaryIO) -> Joined:
    """Write the samples table of parts (schema PART, in the order of the shards); `work` is a directory for what is too
    large for memory."""
    kept, kinds = work / "kept.parquet", Kinds()
    repeats = _first_ones(parts, kept, work)
    for rows in _stretches(kept, ["upstream"]):
        kinds.see(rows)
    found = _matching(kept, kinds, metadata, reader, work) if metadata else []
    writer, samples, missing = None, 0, 0
    for rows in _stretches(kept):
        table, without = spread(rows, kinds), rows.num_rows
        if found:
            table, without = _with_metadata(table, found, samples)
        table, samples, missing = typed("samples", table), samples + rows.num_rows, missing + without
        writer = writer or RowWriter(out, table.schema)
        writer.add(table)
    if writer is None:
        write_parquet(out, conform("samples", spread(pq.read_table(kept))))
    else:
        writer.close()
    return Joined(samples, repeats, missing if metadata else None)


def _first_ones(parts: Sequence[Path], kept: Path, work: Path) -> list[Repeat]:
    """Write the first sample of each uid, sorted by uid; returns the others as they stand in the pool."""
    with duckdb.connect(":memory:", config=SETTINGS) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'; SET temp_directory = {literal(work / 'spill')}")
        connection.execute(REPEATED.format(parts=parquet(parts)))
        connection.execute(f"COPY ({KEPT.format(parts=parquet(parts))}) TO {literal(kept)} (FORMAT parquet)")
        return [Repeat(*row) for row in connection.execute(TOLD).fetchall()]


def _stretches(kept: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    with pq.ParquetFile(kept) as file:
        for batch in file.iter_batches(STRETCH, columns=columns):
            yield pa.Table.from_batches([batch])


def _matching(kept: Path, kinds: Kinds, urls: Sequence[str], reader: Reader, work: Path) -> list[Placed]:
    """The metadata's rows of these samples, in a few files of `work`."""
    uids = np.concatenate([uid_bytes(rows["uid"]) for rows in _stretches(kept, ["uid"])] or [np.empty(0, "S16")])
    names = spread(next(_stretches(kept)).slice(0, 1), kinds).column_names if len(uids) else []
    found: list[Placed] = []
    waiting: list[Placed] = []
    for piece in metadata_rows(urls, reader, uids, names):
        waiting.append(piece)
        if sum(rows.num_rows for rows, _ in waiting) >= WAITING:
            found.append(_mapped(waiting, work / f"metadata-{len(found)}.arrow"))
            waiting = []
    return [*found, _mapped(waiting, work / "metadata.arrow")] if waiting else found


def _mapped(pieces: Sequence[Placed], path: Path) -> Placed:
    """Rows and their positions in the order of these, the rows in a file that is mapped."""
    rows = pa.concat_tables([rows for rows, _ in pieces], promote_options="permissive")
    at = np.concatenate([at for _, at in pieces])
    order = np.argsort(at, kind="stable")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows.take(pa.array(order)))
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all(), at[order]


def _with_metadata(samples: pa.Table, found: Sequence[Placed], start: int) -> tuple[pa.Table, int]:
    """The samples from position `start` on with the columns of their metadata, and how many of them have none."""
    pieces, places = [], []
    for rows, at in found:
        first, end = np.searchsorted(at, [start, start + samples.num_rows])
        pieces.append(rows.slice(first, end - first))
        places.append(at[first:end] - start)
    return add_metadata(samples, pa.concat_tables(pieces, promote_options="permissive"), np.concatenate(places))
