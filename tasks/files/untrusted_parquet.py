"""Parquet files that others wrote: their columns, or a plain word on what is wrong with the file.

A footer may lie about what follows it, so the rows read are counted against every number that the footer gives. Read
through the pool's reader, in batches of rows: memory is one batch of the columns asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteFault

BATCH = 1 << 16
LONGEST_FOOTER = 64 << 20
"""Bytes; a footer of a million columns and row groups. A larger number in a damaged file would be allocated."""


class Unreadable(UserError, ValueError):
    """A file that is not what it should be; the message says why."""


def parquet_columns(url: str, reader: Reader, each_once: bool = False) -> dict[str, pa.DataType]:
    """Name and type of every column; raises Unreadable (`each_once`: for two of one name, too), or OSError when the
    file cannot be had."""
    file, _ = reader.open(url)
    with file:
        try:
            schema = pq.ParquetFile(file, **_LIMITS).schema_arrow
        except RemoteFault:
            raise
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise _unreadable(url, error) from error
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice and each_once:
        raise Unreadable(f"{url}: more than one column is called {', '.join(twice)}. Rename or drop the others")
    return {field.name: field.type for field in schema}


def parquet_batches(url: str, reader: Reader, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of `columns`, a batch at a time; raises Unreadable where the file stops being sound."""
    file, _ = reader.open(url)
    with file:
        try:
            parquet = pq.ParquetFile(file, **_LIMITS)
            groups = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
            read = 0
            for batch in parquet.iter_batches(BATCH, columns=list(columns)):
                batch.validate(full=True)
                read += batch.num_rows
                yield batch
        except RemoteFault:
            raise
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise _unreadable(url, error) from error
        if not read == sum(groups) == parquet.metadata.num_rows:
            told = f"its row groups say {sum(groups):,}, its footer {parquet.metadata.num_rows:,}"
            raise Unreadable(f"{url}: {read:,} rows are in it, {told}")


_LIMITS = {"thrift_string_size_limit": LONGEST_FOOTER, "thrift_container_size_limit": 1 << 20}


def _unreadable(url: str, error: BaseException) -> Unreadable:
    return Unreadable(f"{url}: no sound Parquet file ({type(error).__name__}: {' '.join(str(error).split())[:300]})")
