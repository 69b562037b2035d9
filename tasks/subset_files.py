"""Subset files: which samples, how often each, in any form that comes along.

* `.npy`, what DataComp's resharder and submission take: numpy records `u8,u8` (high and low 64 bits of the uid),
  sorted, a uid repeated as often as its count, 16 bytes a record. The resharder also takes the bare records without the
  header.
* Parquet with `uid` and `count`: a manifest, or what `mgd export --format parquet` writes.

The resharder trusts its input: an unsorted file gives it wrong samples without a word, a foreign uid only a warning. So
files are read here as untrusted: typed, sorted, not empty, no uid given two counts, or SubsetError.

Cost: 16 bytes of memory a record, and one pass over the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from tasks.uids import DATACOMP, Bytes16, Words, from_words, to_words, uid_array, uid_bytes, uid_hex

MAGIC = b"\x93NUMPY"
RECORDS_AT_ONCE = 1 << 20

Counts = npt.NDArray[np.int64]


class SubsetError(UserError, ValueError):
    """A subset file, or a manifest, that does not fit: what is wrong, how often, and what to do."""


@dataclass(frozen=True, eq=False)
class Subset:
    """uids (n,) sorted and distinct, and how often each stands in the subset (n,), whole numbers above 0."""

    path: Path
    uids: Bytes16
    counts: Counts

    @property
    def total(self) -> int:
        """Size of the multiset."""
        return int(self.counts.sum())

    @cached_property
    def digest(self) -> str:
        """blake2b-128 of uids and counts: equal subsets have equal digests, whatever file they came in."""
        state = blake2b(np.ascontiguousarray(self.uids).view(np.uint8).data, digest_size=16)
        state.update(self.counts.astype("<i8").data)
        return state.hexdigest()

    def only(self, kept: npt.NDArray[np.bool_]) -> Subset:
        """The part of it where `kept` (n,) is true."""
        return Subset(self.path, self.uids[kept], self.counts[kept])


def read_subset(path: str | Path) -> Subset:
    """The subset in a `.npy` file, a file of bare records, or a Parquet file; raises SubsetError."""
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(len(MAGIC))
    return _read_parquet(path) if start.startswith(b"PAR1") else counted(path, read_records(path, bare=True))


def everything(path: Path) -> Subset:
    """Every sample of a samples table, sorted by uid, once."""
    with pq.ParquetFile(path) as file:
        uids = uid_bytes(file.read(["uid"])["uid"])
    return _checked(Subset(path, uids, np.ones(len(uids), np.int64)))


def read_records(path: Path, bare: bool = False) -> Bytes16:
    """uid of every record of a DataComp subset file, sorted, repeats kept; `bare`: the numpy header may be missing.

    Raises SubsetError unless the file is typed, sorted and not empty.
    """
    records = mapped_records(path, bare)
    if not len(records):
        raise SubsetError(f"{path}: no record; the resharder would write no shard and training would find nothing")
    uids = np.empty(len(records), "S16")
    for at in range(0, len(records), RECORDS_AT_ONCE):
        uids[at : at + RECORDS_AT_ONCE] = from_words(records[at : at + RECORDS_AT_ONCE])
    wrong = np.flatnonzero(uids[1:] < uids[:-1])
    if len(wrong):
        raise SubsetError(
            f"{path}: not sorted, {len(wrong):,} of {len(uids):,} records are below the one before, "
            f"first record {wrong[0] + 1:,}. The resharder would pick wrong samples and not say so: sort them"
        )
    return uids


def mapped_records(path: Path, bare: bool = False) -> Words:
    """The records of a DataComp subset file, mapped and typed but not looked at; raises SubsetError."""
    with open(path, "rb") as file:
        headed = file.read(len(MAGIC)) == MAGIC
    if bare and not headed:
        return _load_bare(path)
    try:
        records = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # numpy parses the header as Python, and raises whatever the tokenizer does
        raise SubsetError(f"{path}: not a numpy file ({error}); write it with numpy.save") from error
    if not isinstance(records, np.ndarray) or records.dtype != DATACOMP or records.ndim != 1:
        kind = getattr(records, "dtype", type(records).__name__)
        raise SubsetError(
            f"{path}: {kind} of shape {getattr(records, 'shape', '?')}, expected one-dimensional records of "
            f"numpy dtype 'u8,u8' {DATACOMP.descr}: high and low 64 bits of the uid"
        )
    if isinstance(records, np.memmap) and records.offset + records.nbytes != path.stat().st_size:
        raise SubsetError(
            f"{path}: its header says {len(records):,} records, but {path.stat().st_size - records.offset:,} bytes "
            f"follow it, {DATACOMP.itemsize} each: the header was changed, or two files were joined; write it anew"
        )
    return records


def counted(path: Path, uids: Bytes16) -> Subset:
    """Sorted uids with repeats as a subset."""
    starts = np.flatnonzero(np.concatenate([[True], uids[1:] != uids[:-1]]))
    return Subset(path, uids[starts], np.diff(np.append(starts, len(uids))))


def write_records(file: BinaryIO, uids: Bytes16, counts: Counts) -> None:
    """Write sorted uids, each repeated as often as its count, as `.npy`; equal subsets give equal bytes."""
    header = np.lib.format.header_data_from_array_1_0(np.empty(0, DATACOMP))
    # Not np.save: it writes past the file object and loses the reason when the disk is full.
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (int(counts.sum()),)})
    for part in _slices(counts):
        file.write(np.repeat(to_words(uids[part]), counts[part]).tobytes())


def foreign_uids(uids: Bytes16, pool: Bytes16) -> npt.NDArray[np.bool_]:
    """Which of `uids` are not in `pool`."""
    if not len(pool):
        return np.ones(len(uids), bool)
    ordered = pool if bool((pool[1:] >= pool[:-1]).all()) else np.sort(pool)
    places = np.minimum(np.searchsorted(ordered, uids), len(ordered) - 1)
    return ordered[places] != uids


def _slices(counts: Counts) -> Iterator[slice]:
    """Consecutive positions that hold about RECORDS_AT_ONCE records together."""
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(RECORDS_AT_ONCE, int(ends[-1]), RECORDS_AT_ONCE), side="right")
    edges = np.unique([0, *cuts, len(counts)])
    yield from (slice(a, b) for a, b in pairwise(edges.tolist()))


def _load_bare(path: Path) -> Words:
    size = path.stat().st_size
    if size % DATACOMP.itemsize:
        raise SubsetError(
            f"{path}: neither a numpy file, nor Parquet, nor bare records: {size:,} bytes are no multiple of "
            f"{DATACOMP.itemsize}. A subset is a .npy of dtype 'u8,u8', or Parquet with columns uid and count"
        )
    # An empty file cannot be mapped.
    return np.memmap(path, DATACOMP, "r") if size else np.empty(0, DATACOMP)


def _read_parquet(path: Path) -> Subset:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            table = file.read(columns=["uid", "count"]) if {"uid", "count"} <= set(names) else None
    except pa.ArrowException as error:
        raise SubsetError(f"{path}: not a readable Parquet file ({error})") from error
    if table is None:
        raise SubsetError(f"{path}: columns {names}; a subset in Parquet has uid and count")
    uids, counts = _uids(path, table["uid"]), table["count"].to_numpy()
    if not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise SubsetError(f"{path}: counts are whole numbers from 0 on; got {counts.dtype}")
    kept = np.flatnonzero(counts > 0)
    kept = kept[np.argsort(uids[kept], kind="stable")]
    return _checked(Subset(path, uids[kept], counts[kept].astype(np.int64)))


def _uids(path: Path, column: pa.ChunkedArray) -> Bytes16:
    try:
        return uid_bytes(uid_array(column))
    except ValueError as error:
        raise SubsetError(f"{path}: {error}") from error


def _checked(subset: Subset) -> Subset:
    if not len(subset.uids):
        raise SubsetError(f"{subset.path}: no sample has a count above 0")
    twice = np.flatnonzero(subset.uids[1:] == subset.uids[:-1])
    if len(twice):
        first = uid_hex(subset.uids[twice[:1]])[0]
        raise SubsetError(
            f"{subset.path}: {len(twice):,} uids have more than one row, first {first}; give each one count"
        )
    return subset
