"""Pool metadata: the Parquet files that DataComp publishes beside the pairs, joined to the samples by uid.

Their rows are about what was crawled, a pool's samples are what one download got of it, and keys, order and file
names tell nothing about which belongs to which: only the uid does. A column that the samples have themselves stays as
they have it (their json says what was downloaded; the census compares the two), the others are added: for DataComp's
files, the CLIP scores. The `.npz` files that lie between them are left alone. Names that dataset2metadata gives are
turned into DataComp's.

Cost: one pass over the columns added, and memory for them and the uids of the pool's samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgd_core.errors import UserError
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteOptions
from tasks.files.source_patterns import find_files, find_sources
from tasks.files.untrusted_parquet import Unreadable, parquet_batches, parquet_columns
from tasks.tables.schemas import PARTITIONS, upstream_field
from tasks.tables.sql_names import distinct_names
from tasks.tables.uids import UID, Bytes16, uid_bytes

# dataset2metadata without `use_datacomp_keys`.
ALIASES = {
    "oai-clip-vit-b32-score": "clip_b32_similarity_score",
    "oai-clip-vit-l14-score": "clip_l14_similarity_score",
    "face-boxes": "face_bboxes",
    "original-width": "original_width",
    "original-height": "original_height",
}
# Long, and in every sample already: its caption, its json member.
LEFT_OUT = {"uid", "url", "text", "caption", "face_bboxes", *PARTITIONS}


class MetadataError(UserError, ValueError):
    """Metadata that cannot be joined; the message says which file, why and what to do."""


def find_metadata(
    named: str | Sequence[str] | None, base: str, options: RemoteOptions | None = None
) -> tuple[str, ...]:
    """Addresses of the metadata files: of a directory, glob, URL or list of them; for None, what DataComp's downloader
    puts beside the shards (`metadata` next to a base called `shards`), if it is there.

    Raises SourceError when something is named and nothing is there.
    """
    if named is None:
        folder, _, last = base.rpartition("/")
        return tuple(find_files(f"{folder}/metadata", "*.parquet", options)) if last == "shards" else ()
    if not named:
        return ()
    hint = "The catalog names it as the pool's metadata; leave pool.metadata out, or give where the files are"
    found = find_sources(named, ["*.parquet"], options, "*.parquet", hint)
    if found.passed_over:
        say(found.told(["*.parquet"]))
    return found.urls


def metadata_rows(
    urls: Sequence[str], reader: Reader, uids: Bytes16, taken: Sequence[str]
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """The metadata's rows of a pool's uids (sorted), but for the columns `taken`, and the position of each one's uid;
    batch by batch. Files that disagree about a column's type have it in one that holds both, text if need be.

    Raises MetadataError for a file that cannot be read or has no uid.
    """
    columns = _columns(urls, reader, {*LEFT_OUT, *(name.lower() for name in taken)})
    for url in urls:
        yield from _matching(url, reader, uids, columns)


def add_metadata(samples: pa.Table, rows: pa.Table, at: np.ndarray) -> tuple[pa.Table, int]:
    """The samples (sorted by uid) with the columns of metadata `rows`, whose samples are at the positions `at`, and how
    many of them have no row there; raises MetadataError where two rows of one sample differ."""
    uids = uid_bytes(samples["uid"])
    order = np.argsort(at, kind="stable")
    first = _first_of_each(rows, at, order, uids)
    indices = np.full(len(uids), -1, np.int64)
    indices[at[first]] = first
    missing = indices < 0
    taken = rows.take(pa.array(indices, pa.int64(), mask=missing))
    for name in sorted(taken.column_names):
        samples = samples.append_column(upstream_field(name, taken[name].type), taken[name])
    return samples, int(missing.sum())


def metadata_uids(url: str, uids: pa.Array) -> Bytes16:
    """A file's uids as numpy S16; raises MetadataError naming the first that is none."""
    check_uid_type(url, uids.type)
    if uids.null_count:
        first = uids.is_null().to_pylist().index(True)
        told = f"{uids.null_count:,} of {len(uids):,} rows have no uid, the first is row {first:,} of its batch"
        raise MetadataError(f"{url}: {told}. Remove these rows: nothing could be joined to them")
    try:
        if uids.type == UID or not _is_text(uids.type):
            return uid_bytes(uids)
        uids = uids.cast(pa.string())
        if pc.all(pc.equal(pc.utf8_length(uids), 32)).as_py():
            packed = bytes.fromhex("".join(uids.to_pylist()))
            if len(packed) == 16 * len(uids):
                return np.frombuffer(packed, "S16")
        return uid_bytes(uids)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise MetadataError(f"{url}: {error}") from error


def check_uid_type(url: str, kind: pa.DataType) -> None:
    """Raise MetadataError unless a column of this type can hold uids; a whole number, say, has lost its digits."""
    if kind != UID and not _is_text(kind) and not (pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16):
        raise MetadataError(
            f"{url}: its uids are of type {kind}; a uid is text of 32 hex digits (or 16 bytes). Write the column anew "
            "from where it was text: digits and zeros that a number drops cannot be had back"
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(_plain(kind)) or pa.types.is_large_string(_plain(kind)))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, however they are coded."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _columns(urls: Sequence[str], reader: Reader, taken: set[str]) -> dict[str, pa.Field]:
    """Name and type of every column that the files add, in DataComp's names, by its name in small letters (SQL does
    not tell Text from text)."""
    found: dict[str, pa.Field] = {}
    for url in urls:
        kinds = _columns_of(url, reader)
        for name, new in _in_datacomps_names(kinds).items():
            if new.lower() not in taken:
                known = found.get(new.lower(), pa.field(new, pa.null()))
                found[new.lower()] = known.with_type(_common(known.type, _plain(kinds[name])))
    return found


def _columns_of(url: str, reader: Reader) -> dict[str, pa.DataType]:
    """A metadata file's columns; raises MetadataError where it cannot be joined."""
    try:
        columns = parquet_columns(url, reader)
    except Unreadable as error:
        raise _broken(error) from error
    if "uid" not in columns:
        raise _broken(Unreadable(f"{url}: has no column uid, only {', '.join(columns)}"))
    return columns


def _common(one: pa.DataType, two: pa.DataType) -> pa.DataType:
    try:
        both = pa.unify_schemas([pa.schema([("c", one)]), pa.schema([("c", two)])], promote_options="permissive")
    except pa.ArrowException:
        return pa.string()
    return both.field("c").type


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    try:
        return column.cast(kind, safe=False)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], kind)


def _matching(
    url: str, reader: Reader, uids: Bytes16, columns: Mapping[str, pa.Field]
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Batches of the rows whose uid is in the pool, in DataComp's names, and the position of each one's sample."""
    own = {new.lower(): name for name, new in _in_datacomps_names(_columns_of(url, reader)).items()}
    added = [name for name in columns if name in own]
    fields = [columns[name] for name in added]
    try:
        for batch in parquet_batches(url, reader, ["uid", *(own[name] for name in added)]):
            found = metadata_uids(url, batch["uid"])
            at = np.minimum(np.searchsorted(uids, found), max(len(uids) - 1, 0))
            hit = np.flatnonzero(uids[at] == found) if len(uids) else np.empty(0, np.int64)
            rows = batch.take(pa.array(hit))
            cast = [_as(rows[own[name]], columns[name].type) for name in added]
            yield pa.table(cast, schema=pa.schema(fields)), at[hit]
    except Unreadable as error:
        raise _broken(error) from error


def _broken(error: Unreadable) -> MetadataError:
    return MetadataError(
        f"{error}. A metadata download that broke off leaves such a file, and the downloader passes over a "
        "directory that exists: fetch the file again (download_upstream.py --overwrite_metadata), or name only "
        "sound files in the catalog's pool.metadata; an empty list leaves metadata out"
    )


def _in_datacomps_names(columns: Iterable[str]) -> dict[str, str]:
    """What each column of a file is called, no two alike in any case."""
    wished = {name: ALIASES.get(name, name) for name in columns}
    told = {name: new if new == name or new not in wished else name for name, new in wished.items()}
    called = distinct_names(told.values(), ())
    return {name: called[new] for name, new in told.items()}


def _first_of_each(rows: pa.Table, at: np.ndarray, order: np.ndarray, uids: Bytes16) -> np.ndarray:
    """Row numbers of the first row of each sample; raises MetadataError where a later one says something else."""
    repeated = np.zeros(len(order), bool)
    repeated[1:] = at[order][1:] == at[order][:-1]
    first = order[~repeated]
    for row in order[repeated].tolist():
        original = int(first[np.searchsorted(at[first], at[row])])
        one, two = (rows.slice(i, 1).to_pylist()[0] for i in (original, row))
        if repr(one) != repr(two):
            raise MetadataError(
                f"the metadata has uid {uids[at[row]].ljust(16, bytes(1)).hex()} twice, as {one} and as {two}: it is "
                "not known which is right. Remove one of the rows, or name only one of the files in pool.metadata"
            )
    return first
