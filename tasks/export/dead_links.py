"""Dead links: samples that a pool never had because their picture could not be downloaded.

img2dataset writes a table beside each tar, `<n>.parquet`, with a row for every sample that it tried, failures too.
Where such tables are, they say why a uid of a subset is not in the pool. A table that cannot be read says nothing here;
the census reports it.

Cost: three columns of every table, read only when samples are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.files.remote_files import Reader
from tasks.files.remotes import split_query
from tasks.files.source_patterns import find_files
from tasks.files.sources import load_source, reader_of
from tasks.files.untrusted_parquet import Unreadable, parquet_batches, parquet_columns
from tasks.pool.metadata import MetadataError, metadata_uids
from tasks.pool.samples import resolve
from tasks.subset.files import foreign_uids
from tasks.tables.uids import Bytes16

Why = tuple[str, str, str]
"""Where a sample should have been, the reason in one word, and what was said of it."""


def dead_links(missing: Bytes16, sources: Sequence[str], root: str | Path) -> dict[bytes, Why]:
    """Why the uids of `missing` (sorted) failed to download, as far as the tables beside the pool's tars tell.

    `sources` are `shard` values of the samples table of the pool in the directory `root`.
    """
    reader, found, base = reader_of(root), dict[bytes, Why](), load_source(root).base
    folders = dict.fromkeys(split_query(resolve(source, root))[0].rpartition("/")[0] for source in sources)
    for folder in folders:
        for url in find_files(folder, "*.parquet", reader.options):
            if not url.rpartition("/")[2].removesuffix(".parquet").isdigit():
                continue
            try:
                found |= dict(_failures(url, url.removeprefix(f"{base}/"), missing, reader))
            except (Unreadable, MetadataError, pa.ArrowException):
                continue
    return found


def _failures(url: str, name: str, missing: Bytes16, reader: Reader) -> Iterator[tuple[bytes, Why]]:
    """The failed rows of one table (called `name`) whose uid is wanted."""
    columns = parquet_columns(url, reader)
    if not {"uid", "status"} <= set(columns):
        return
    asked = [name for name in ("uid", "status", "error_message") if name in columns]
    for batch in parquet_batches(url, reader, asked):
        failed = batch.filter(pc.not_equal(batch["status"].cast(pa.string()), "success"))
        failed = failed.filter(pc.is_valid(failed["uid"]))
        uids = metadata_uids(url, failed["uid"])
        wanted = np.flatnonzero(~foreign_uids(uids, missing))
        for row, i in zip(failed.take(pa.array(wanted)).to_pylist(), wanted.tolist(), strict=True):
            said = ": ".join(str(row[name]) for name in asked[1:] if row[name] is not None)
            yield bytes(uids[i]).ljust(16, b"\0"), (name, "dead_link", said)
