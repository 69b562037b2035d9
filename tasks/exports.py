"""Subset files: a manifest as others take it.

`datacomp`: numpy records `u8,u8` (high and low 64 bits of the uid), sorted, a uid repeated as often as its
count: what DataComp's resharder and submission take. `parquet`: uid (32 hex digits) and count, for anything
that reads Parquet. Whole shards are in `shard_exports`.

The resharder trusts its input: an unsorted file gives it wrong samples without a word, a foreign uid only a
warning. So `verify_datacomp` refuses both, and every file written here is verified after it was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.artefacts import canonical_json, publishing
from tasks.manifests import PROVENANCE, read_manifest
from tasks.tables import write_parquet
from tasks.uids import DATACOMP, Bytes16, Words, from_words, to_words, uid_bytes, uid_hex


class SubsetError(ValueError):
    """A subset file, or a manifest, that does not fit: what is wrong, how often, and what to do."""


@dataclass(frozen=True)
class SubsetReport:
    """A subset file that was read back: records in it, distinct uids, and most copies of one uid."""

    path: Path
    records: int
    distinct: int
    most_copies: int


def export_datacomp(manifest: str | Path, out: str | Path) -> SubsetReport:
    """Write a manifest as DataComp's subset file and verify it; equal manifests give equal bytes."""
    subset = read_manifest(manifest)
    records = np.repeat(to_words(subset.uids), subset.counts)
    with publishing(out) as file:
        # Not np.save: it writes past the file object and loses the reason when the disk is full.
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(records))
        file.write(records.tobytes())
    return verify_datacomp(out, subset.uids)


def export_parquet(manifest: str | Path, out: str | Path) -> SubsetReport:
    """Write a manifest as Parquet with `uid` as text and `count`, its provenance kept in the schema's
    metadata."""
    subset = read_manifest(manifest)
    fields = [pa.field("uid", pa.string(), False), pa.field("count", pa.int32(), False)]
    schema = pa.schema(fields, {PROVENANCE: canonical_json(subset.provenance)})
    with publishing(out) as file:
        write_parquet(file, pa.table([uid_hex(subset.uids), subset.counts.astype(np.int32)], schema=schema))
    return SubsetReport(Path(out), subset.total, len(subset.uids), int(subset.counts.max()))


def verify_datacomp(
    path: str | Path, pool_uids: Iterable[Any] | pa.Array | pa.ChunkedArray | None = None
) -> SubsetReport:
    """Read a subset file back; raises SubsetError unless it is typed, sorted, not empty, and all of it in the
    pool."""
    records = _load(Path(path))
    if not len(records):
        raise SubsetError(
            f"{path}: no record; the resharder would write no shard and training would find nothing"
        )
    uids = from_words(records)
    wrong = np.flatnonzero(uids[1:] < uids[:-1])
    if len(wrong):
        raise SubsetError(
            f"{path}: not sorted, {len(wrong):,} of {len(uids):,} records are below the one before, "
            f"first record {wrong[0] + 1:,}. The resharder would pick wrong samples and not say so: sort them"
        )
    if pool_uids is not None:
        _refuse_foreign(f"{path}", uids, uid_bytes(pool_uids))
    _, copies = np.unique(uids, return_counts=True)
    return SubsetReport(Path(path), len(uids), len(copies), int(copies.max()))


def foreign_uids(uids: Bytes16, pool: Bytes16) -> npt.NDArray[np.bool_]:
    """Which of `uids` are not in `pool`."""
    ordered = np.sort(pool)
    if not len(ordered):
        return np.ones(len(uids), bool)
    places = np.minimum(np.searchsorted(ordered, uids), len(ordered) - 1)
    return ordered[places] != uids


def _refuse_foreign(whose: str, uids: Bytes16, pool: Bytes16) -> None:
    foreign = uids[foreign_uids(uids, pool)]
    if len(foreign):
        shown = ", ".join(uid_hex(np.unique(foreign)[:3]))
        raise SubsetError(
            f"{whose}: {len(foreign):,} of {len(uids):,} records are not among the pool's {len(pool):,}: "
            f"{shown}, ... This subset belongs to another pool, or its uids were made another way"
        )


def _load(path: Path) -> Words:
    try:
        records = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise SubsetError(f"{path}: not a numpy file ({error}); write it with numpy.save") from error
    if not isinstance(records, np.ndarray) or records.dtype != DATACOMP or records.ndim != 1:
        kind = getattr(records, "dtype", type(records).__name__)
        raise SubsetError(
            f"{path}: {kind} of shape {getattr(records, 'shape', '?')}, expected one-dimensional records of "
            f"numpy dtype 'u8,u8' {DATACOMP.descr}: high and low 64 bits of the uid"
        )
    return records
