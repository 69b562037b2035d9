"""DataComp's subset files piece by piece: for subsets that should not lie in memory as a whole.

`RecordWriter` writes what `files.write_records` does, to the byte, from sorted pieces; `record_pieces` reads a
file with the checks of `files.read_subset`. Memory is that of a piece, 2^20 records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from tasks.subset.files import MAGIC, RECORDS_AT_ONCE, Counts, SubsetError, mapped_records, parquet_rows, slices
from tasks.tables.uids import DATACOMP, Bytes16, from_words, to_words, uid_array, uid_hex

SCHEMA = pa.schema([pa.field("uid", pa.uuid()), pa.field("count", pa.int64())])


class RecordWriter:
    """Writes sorted, distinct uids with their counts into an open `.npy` file; `finish` at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self.records, self.distinct, self.most_copies = 0, 0, 0
        self._file, self._start, self._last = file, file.tell(), b""
        self._header()

    def add(self, uids: Bytes16, counts: Counts) -> None:
        """Write uids (n,) as often as `counts` (n,), above 0, say; raises SubsetError where they do not ascend."""
        if not len(uids):
            return
        ahead = np.concatenate([np.array([self._last], "S16"), uids])
        bad = np.flatnonzero(ahead[1:] <= ahead[:-1])
        if len(bad) and (bad[0] or self.distinct):
            raise SubsetError(
                f"uid {uid_hex(uids[bad[:1]])[0]} is chosen twice; filters, and the pool, have each uid once"
            )
        if counts.min() < 1:
            raise SubsetError(f"uid {uid_hex(uids[counts < 1][:1])[0]} is chosen {counts.min()} times; leave it out")
        words = to_words(uids)
        for piece in slices(counts):
            self._file.write(np.repeat(words[piece], counts[piece]).tobytes())
        self.records += int(counts.sum())
        self.distinct += len(uids)
        self.most_copies = max(self.most_copies, int(counts.max()))
        self._last = uids[-1]

    def finish(self) -> None:
        """Write the number of records into the header."""
        self._file.seek(self._start)
        self._header()
        self._file.seek(0, 2)

    def _header(self) -> None:
        # numpy pads a header so that its length does not depend on the number of records.
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, DATACOMP))
        np.lib.format.write_array_header_1_0(self._file, {**header, "shape": (self.records,)})


def record_pieces(path: Path) -> Iterator[tuple[Bytes16, Counts]]:
    """Sorted, distinct uids and their counts, of a `.npy` file or bare records; raises SubsetError."""
    records = mapped_records(path, bare=True)
    if not len(records):
        raise SubsetError(f"{path}: no record")
    held, copies = np.empty(0, "S16"), np.empty(0, np.int64)
    for at in range(0, len(records), RECORDS_AT_ONCE):
        uids = np.concatenate([held, from_words(records[at : at + RECORDS_AT_ONCE])])
        weights = np.concatenate([copies, np.ones(len(uids) - len(held), np.int64)])
        if (uids[1:] < uids[:-1]).any():
            place = at - len(held) + int(np.flatnonzero(uids[1:] < uids[:-1])[0]) + 2
            raise SubsetError(f"{path}: not sorted, record {place:,} is below the one before; sort the records")
        starts = np.flatnonzero(np.concatenate([[True], uids[1:] != uids[:-1]]))
        sums = np.add.reduceat(weights, starts)
        # The last uid may go on in the next piece.
        held, copies = uids[starts[-1:]], sums[-1:]
        yield uids[starts[:-1]], sums[:-1]
    yield held, copies


def subset_batches(path: Path, failed: Callable[[Exception], object] = lambda _: None) -> pa.RecordBatchReader:
    """A subset file as Arrow batches of `uid` and `count` (above 0), in the file's order; Parquet too.

    `failed` is called with what reading raises, since whoever takes the batches shows it as something else.
    """
    with open(path, "rb") as file:
        parquet = file.read(len(MAGIC)).startswith(b"PAR1")

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from _parquet_batches(path) if parquet else _record_batches(path)
        except Exception as error:
            failed(error)
            raise

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def _record_batches(path: Path) -> Iterator[pa.RecordBatch]:
    for uids, counts in record_pieces(path):
        yield pa.record_batch([uid_array(uids), pa.array(counts)], schema=SCHEMA)


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    for uids, counts in parquet_rows(path):
        yield pa.record_batch([uid_array(uids), pa.array(counts)], schema=SCHEMA)
