"""Tables that are too large for memory: written and read a row group at a time.

`publishing_rows` gives the bytes that `tables.publish` gives for the same rows: row groups of the same size, whatever
pieces the rows come in. The rows have to come sorted by uid, since nothing here can sort them.

Cost: memory for one row group, 2^20 rows, of the columns at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.tables.published import PARQUET, ROW_GROUP, Part, TableError, publishing_part, typed
from tasks.tables.schemas import BY_UID
from tasks.tables.uids import uid_bytes, uid_hex


class RowWriter:
    """Writes rows of one schema into an open file, in row groups of ROW_GROUP rows, whatever pieces they come in."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self.rows = 0
        self._writer = pq.ParquetWriter(file, schema, **PARQUET)
        self._waiting: list[pa.Table] = []
        self._held = 0

    def add(self, rows: pa.Table) -> None:
        """Write rows after those before."""
        self.rows += rows.num_rows
        at = 0
        while at < rows.num_rows:
            piece = rows.slice(at, ROW_GROUP - self._held)
            self._waiting.append(piece)
            self._held += piece.num_rows
            at += piece.num_rows
            if self._held == ROW_GROUP:
                self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._held or not self.rows:
            self._flush()
        self._writer.close()

    def release(self) -> None:
        """Let go of the file, finished or not: pyarrow's writer would write into it once more when it is collected."""
        with suppress(OSError, ValueError):
            self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            group = pa.concat_tables(self._waiting).combine_chunks()
            self._writer.write_table(group, row_group_size=ROW_GROUP)
        self._waiting, self._held = [], 0


class TableRows:
    """Writes a table's rows, typed and finite, and refuses uids that do not ascend."""

    def __init__(self, part: Part, table: str) -> None:
        self._part, self._table, self._last = part, table, b""
        self._writer: RowWriter | None = None

    def add(self, rows: pa.Table) -> None:
        """Write rows after those before; raises TableError where they do not fit or a uid is not above the last."""
        for at in range(0, max(rows.num_rows, 1), ROW_GROUP):
            self._add(rows.slice(at, ROW_GROUP))

    def _add(self, rows: pa.Table) -> None:
        rows = typed(self._table, rows)
        if self._table in BY_UID and rows.num_rows:
            self._check_order(rows)
        if self._writer is None:
            self._writer = RowWriter(self._part.file, rows.schema)
        self._writer.add(rows)
        self._part.count(self._table, rows)

    def close(self) -> None:
        """End the file."""
        if self._writer is None:
            raise TableError(f"{self._table}: no rows to publish")
        self._writer.close()

    def release(self) -> None:
        """Let go of the file, finished or not."""
        if self._writer is not None:
            self._writer.release()

    def _check_order(self, rows: pa.Table) -> None:
        uids = uid_bytes(rows["uid"])
        began = self._writer is not None
        if (uids[1:] <= uids[:-1]).any() or (began and uids[0] <= self._last):
            raise TableError(f"{self._table}: uids do not ascend near {uid_hex(uids[:1])[0]}; a stream comes sorted")
        self._last = uids[-1]


@contextmanager
def publishing_rows(home: str | Path, run: str, table: str, round: int) -> Iterator[TableRows]:
    """A table to add rows to, piece by piece, that is published when the block ends well; as `tables.publish` else."""
    with publishing_part(home, run, table, round) as part:
        rows = TableRows(part, table)
        try:
            yield rows
            rows.close()
        finally:
            rows.release()
