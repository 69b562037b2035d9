"""Exports: a round's counts, or any other subset, as the file that others take.

`datacomp`: what DataComp's resharder and submission take; `parquet`: uid (32 hex digits) and count, for anything that
reads Parquet; `jsonl`: the samples themselves, of a pool of texts, as they came (`text_lines`). `subset.files` says
what is in them; whole shards are written by `reshard`. Every `.npy` is verified after it was written, because the
resharder would swallow a wrong one in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.export.text_lines import found_lines
from tasks.files.artefacts import canonical_json
from tasks.files.export_files import publishing_over
from tasks.pool.record import PoolRecord
from tasks.pool.text_records import TextColumns
from tasks.subset.files import Subset, SubsetError, counted, foreign_uids, read_records, read_subset, write_records
from tasks.tables.published import write_parquet
from tasks.tables.uids import Bytes16, uid_bytes, uid_hex

PROVENANCE = b"mgd.manifest"
"""Where an exported Parquet file's schema keeps what it came from, as JSON."""


@dataclass(frozen=True)
class SubsetReport:
    """A subset file that was read back: records in it, distinct uids, and most copies of one uid."""

    path: Path
    records: int
    distinct: int
    most_copies: int


def export_datacomp(counts: str | Path, out: str | Path) -> SubsetReport:
    """Write the subset in a file as DataComp's subset file and verify it; equal subsets give equal bytes."""
    subset = read_subset(counts)
    with publishing_over(out, "datacomp") as file:
        write_records(file, subset.uids, subset.counts)
    return verify_datacomp(out, subset.uids)


def export_parquet(counts: str | Path, out: str | Path, provenance: Mapping[str, Any]) -> SubsetReport:
    """Write the subset in a file as Parquet with `uid` as text and `count`, its provenance in the schema's metadata."""
    subset = read_subset(counts)
    fields = [pa.field("uid", pa.string(), False), pa.field("count", pa.int32(), False)]
    schema = pa.schema(fields, {PROVENANCE: canonical_json(dict(provenance))})
    with publishing_over(out, "parquet") as file:
        write_parquet(file, pa.table([uid_hex(subset.uids), subset.counts.astype(np.int32)], schema=schema))
    return SubsetReport(Path(out), subset.total, len(subset.uids), int(subset.counts.max()))


def export_jsonl(
    counts: str | Path, pool: PoolRecord, out: str | Path, columns: TextColumns | None = None
) -> SubsetReport:
    """Write a subset's samples as JSON lines: each the record that the pool got, in the order of their uids, copies
    after each other. `columns`: what prompt and completion were made of, for a pool whose record says not.

    Raises SubsetError for a pool of pictures, or whose files have changed.
    """
    if pool.samples_kind != TextColumns.kind:
        raise SubsetError(f"pool {pool.pool_id} is of image-text pairs; jsonl is for texts. Take webdataset")
    subset = read_subset(counts)
    own = TextColumns(**pool.columns) if pool.columns else columns or TextColumns()
    with publishing_over(out, "jsonl") as file:
        lines = found_lines(pool, subset.uids, own, Path(out).absolute().parent)
        for line, count in zip(lines, subset.counts.tolist(), strict=True):
            for _ in range(count):
                file.write(line)
    return SubsetReport(Path(out), subset.total, len(subset.uids), int(subset.counts.max()))


def verify_datacomp(
    path: str | Path, pool_uids: Iterable[Any] | pa.Array | pa.ChunkedArray | None = None
) -> SubsetReport:
    """Read a subset file back; raises SubsetError unless it is typed, sorted, not empty, and all of it in the pool."""
    subset = counted(Path(path), read_records(Path(path)))
    if pool_uids is not None:
        _refuse_foreign(subset, uid_bytes(pool_uids))
    return SubsetReport(Path(path), subset.total, len(subset.uids), int(subset.counts.max()))


def _refuse_foreign(subset: Subset, pool: Bytes16) -> None:
    foreign = subset.only(foreign_uids(subset.uids, pool))
    if len(foreign.uids):
        raise SubsetError(
            f"{subset.path}: {foreign.total:,} of {subset.total:,} records are not among the pool's {len(pool):,}: "
            f"{', '.join(uid_hex(foreign.uids[:3]))}, ... This subset belongs to another pool, or its uids were made "
            "another way"
        )
