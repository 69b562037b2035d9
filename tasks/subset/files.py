"""Subset files: which samples, how often each, in any form that comes along.

* `.npy`, what DataComp's resharder and submission take: numpy records `u8,u8` (high and low 64 bits of the uid),
  sorted, a uid repeated as often as its count, 16 bytes a record. The resharder also takes the bare records without the
  header.
* Parquet with `uid` and `count`: a table of counts, or what `mgd export --format parquet` writes.

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
from tasks.files.file_forms import ZEROS, form_of_file
from tasks.files.remote_files import Reader
from tasks.files.untrusted_parquet import Unreadable, parquet_batches, parquet_columns
from tasks.homes.working_copies import at_hand
from tasks.tables.uids import DATACOMP, UID, Bytes16, Words, from_words, to_words, uid_array, uid_bytes, uid_hex

MAGIC = b"\x93NUMPY"
RECORDS_AT_ONCE = 1 << 20
MOST_COPIES = 1 << 20
"""Of one sample: more are a mistake, and would fill any disk."""

Counts = npt.NDArray[np.int64]


class SubsetError(UserError, ValueError):
    """A subset file that does not fit: what is wrong, how often, and what to do."""


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
    at_hand(path)
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
        if "mmap length" in str(error):
            raise SubsetError(
                f"{path}: cut, its header says more records than its {path.stat().st_size:,} bytes can hold; fetch or "
                "write it again"
            ) from error
        looks = "" if headed else _looks(path)
        raise SubsetError(f"{path}: not a numpy file ({error}){looks}; write it with numpy.save") from error
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


def parquet_rows(path: Path) -> Iterator[tuple[Bytes16, Counts]]:
    """uids and counts (above 0) of a subset in Parquet, in the file's order, a piece at a time; raises SubsetError."""
    try:
        columns = parquet_columns(str(path), Reader())
        if not {"uid", "count"} <= columns.keys():
            raise SubsetError(f"{path}: columns {list(columns)}; a subset in Parquet has uid and count")
        if not _may_be_uid(columns["uid"]):
            raise SubsetError(f"{path}: its uids are {columns['uid']}; a uid is up to 32 hex digits, or 16 bytes")
        if not pa.types.is_integer(columns["count"]):
            raise SubsetError(f"{path}: counts are whole numbers from 0 on; got {columns['count']}")
        for batch in parquet_batches(str(path), Reader(), ["uid", "count"]):
            yield _counted_rows(path, batch)
    except Unreadable as error:
        raise SubsetError(f"{path}: not a readable Parquet file ({error})") from error


def counted(path: Path, uids: Bytes16) -> Subset:
    """Sorted uids with repeats as a subset."""
    starts = np.flatnonzero(np.concatenate([[True], uids[1:] != uids[:-1]]))
    return Subset(path, uids[starts], np.diff(np.append(starts, len(uids))))


def write_records(file: BinaryIO, uids: Bytes16, counts: Counts) -> None:
    """Write sorted uids, each repeated as often as its count, as `.npy`; equal subsets give equal bytes."""
    header = np.lib.format.header_data_from_array_1_0(np.empty(0, DATACOMP))
    # Not np.save: it writes past the file object and loses the reason when the disk is full.
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (int(counts.sum()),)})
    for part in slices(counts):
        file.write(np.repeat(to_words(uids[part]), counts[part]).tobytes())


def foreign_uids(uids: Bytes16, pool: Bytes16) -> npt.NDArray[np.bool_]:
    """Which of `uids` are not in `pool`."""
    if not len(pool):
        return np.ones(len(uids), bool)
    ordered = pool if bool((pool[1:] >= pool[:-1]).all()) else np.sort(pool)
    places = np.minimum(np.searchsorted(ordered, uids), len(ordered) - 1)
    return ordered[places] != uids


def slices(counts: Counts) -> Iterator[slice]:
    """Consecutive positions that hold about RECORDS_AT_ONCE records together."""
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(RECORDS_AT_ONCE, int(ends[-1]), RECORDS_AT_ONCE), side="right")
    edges = np.unique([0, *cuts, len(counts)])
    yield from (slice(a, b) for a, b in pairwise(edges.tolist()))


def _load_bare(path: Path) -> Words:
    size = path.stat().st_size
    looks = _looks(path)
    if size % DATACOMP.itemsize or looks:
        odd = f": {size:,} bytes are no multiple of {DATACOMP.itemsize}" if size % DATACOMP.itemsize else ""
        raise SubsetError(
            f"{path}: neither a numpy file, nor Parquet, nor bare records{odd}{looks}. A subset is a .npy of dtype "
            "'u8,u8', or Parquet with columns uid and count"
        )
    # An empty file cannot be mapped.
    return np.memmap(path, DATACOMP, "r") if size else np.empty(0, DATACOMP)


def _looks(path: Path) -> str:
    """What a file seems to be instead of a subset."""
    form = form_of_file(path)
    return f"; it is {form}" if form not in ("", ZEROS) else ""  # 0 is a uid, too


def _read_parquet(path: Path) -> Subset:
    pieces = list(parquet_rows(path))
    uids = np.concatenate([np.empty(0, "S16"), *(one for one, _ in pieces)])
    counts = np.concatenate([np.empty(0, np.int64), *(two for _, two in pieces)])
    order = np.argsort(uids, kind="stable")
    return _checked(Subset(path, uids[order], counts[order]))


def _counted_rows(path: Path, batch: pa.RecordBatch) -> tuple[Bytes16, Counts]:
    """The rows of a batch with a count above 0."""
    column = batch["count"]
    if column.null_count:
        raise SubsetError(f"{path}: {column.null_count:,} counts are missing; 0 leaves a sample out")
    counts = column.to_numpy(zero_copy_only=False)
    low, high = (counts.min(), counts.max()) if len(counts) else (0, 0)
    if low < 0 or high > MOST_COPIES:
        raise SubsetError(
            f"{path}: counts are whole numbers from 0 to {MOST_COPIES:,}; they go from {low:,} to {high:,}"
        )
    try:
        uids = uid_bytes(_as_uids(batch["uid"]))
    except ValueError as error:
        raise SubsetError(f"{path}: {error}") from error
    kept = np.flatnonzero(counts > 0)
    return uids[kept], counts[kept].astype(np.int64)


def _may_be_uid(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _may_be_uid(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    octets = types.is_binary(kind) or types.is_large_binary(kind)
    return bool(kind == UID or text or octets or (types.is_fixed_size_binary(kind) and kind.byte_width == 16))


def _as_uids(column: pa.Array) -> pa.Array:
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = column.cast(pa.binary(16))  # refuses other lengths
    return uid_array(column)


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
