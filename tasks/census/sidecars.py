"""Census sidecars: what img2dataset writes beside each tar, and DataComp beside the shards.

`<n>_stats.json` (counters; written last, so it says that the shard is complete), `<n>.parquet` (one row a sample that
was tried, failures too), `metadata/<hex>.parquet` (what was crawled) and `.npz` beside it (embeddings, same rows).
Any of them may be missing, cut or of another version; each of these is a finding, none an end of the census. Captions
are called `caption` in the shards' tables and `text` in the metadata; keys differ between downloads and join nothing.

Costs a read of the files named; of an npz only the headers of its arrays, because an array can only be inflated whole.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteFault
from tasks.files.untrusted_parquet import Unreadable, parquet_batches, parquet_columns
from tasks.pool.metadata import ALIASES, MetadataError, check_uid_type, metadata_uids
from tasks.tables.uids import UID, uid_array

COUNTERS = ("count", "successes", "failed_to_download", "failed_to_resize")
LONGEST_ERROR = 200  # characters of an error message that are kept
ATTEMPTS = pa.schema(
    [("uid", UID), ("shard", pa.string()), ("key", pa.string()), ("status", pa.string()), ("error", pa.string())]
)
METADATA = pa.schema(
    [
        ("uid", UID),
        ("file", pa.string()),
        ("sha256", pa.binary(32)),
        ("clip_b32_similarity_score", pa.float32()),
        ("clip_l14_similarity_score", pa.float32()),
    ]
)


def read_stats(url: str, reader: Reader) -> dict[str, int]:
    """The counters of a stats file; raises Unreadable."""
    try:
        record = json.loads(reader.read(url))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{url}: no JSON ({error})") from error
    if not isinstance(record, dict) or not _is_count(record.get("successes")):
        raise Unreadable(f"{url}: an object with a whole number of successes was expected, not {str(record)[:80]}")
    return {name: record[name] for name in COUNTERS if _is_count(record.get(name))}


def read_attempts(url: str, shard: str, reader: Reader) -> pa.Table:
    """What was tried for a shard, columns ATTEMPTS (uid null where the table has none); raises Unreadable."""
    columns = parquet_columns(url, reader)
    if "status" not in columns:
        raise Unreadable(f"{url}: has no column status, only {', '.join(columns)}")
    asked = [name for name in ("uid", "key", "status", "error_message") if name in columns]
    parts = []
    for batch in parquet_batches(url, reader, asked):
        n = batch.num_rows
        try:
            check_uid_type(url, batch["uid"].type if "uid" in asked else UID)
            texts = {name: batch[name].cast(pa.string()).to_pylist() for name in asked}
        except (MetadataError, pa.ArrowException) as error:
            raise Unreadable(str(error) if isinstance(error, MetadataError) else f"{url}: {error}") from error
        errors = [None if text is None else text[:LONGEST_ERROR] for text in texts.get("error_message", [None] * n)]
        named: dict[str, Any] = {
            "uid": _uids_or_null(url, texts["uid"]) if "uid" in texts else pa.nulls(n, UID),
            "shard": pa.array([shard] * n, pa.string()),
            "key": pa.array(texts.get("key", [None] * n), pa.string()),
            "status": pa.array(texts["status"], pa.string()),
            "error": pa.array(errors, pa.string()),
        }
        parts.append(pa.table(list(named.values()), schema=ATTEMPTS))
    return pa.concat_tables(parts) if parts else ATTEMPTS.empty_table()


def metadata_parts(url: str, name: str, reader: Reader) -> Iterator[pa.Table]:
    """A metadata file's rows, columns METADATA (`file` being its `name`), a batch at a time; raises Unreadable."""
    columns = {ALIASES.get(name, name): name for name in parquet_columns(url, reader)}
    if "uid" not in columns:
        raise Unreadable(f"{url}: has no column uid, only {', '.join(columns)}")
    asked = [name for name in ("uid", "sha256", *METADATA.names[3:]) if name in columns]
    for batch in parquet_batches(url, reader, [columns[name] for name in asked]):
        rows = dict(zip(asked, batch.columns, strict=True))
        try:
            uids = uid_array(metadata_uids(url, rows["uid"]))
            scores = [rows[n].cast(pa.float32()) if n in rows else None for n in METADATA.names[3:]]
        except (MetadataError, pa.ArrowException) as error:
            raise Unreadable(str(error)) from error
        hashes = [hash_bytes(text) for text in rows["sha256"].to_pylist()] if "sha256" in rows else [None] * len(uids)
        made = [uids, pa.array([name] * len(uids), pa.string()), pa.array(hashes, pa.binary(32))]
        made += [pa.nulls(len(uids), pa.float32()) if score is None else score for score in scores]
        yield pa.table(made, schema=METADATA)


def npz_rows(url: str, reader: Reader) -> dict[str, int]:
    """Rows of every array of an npz, by name; raises Unreadable."""
    file, _ = reader.open(url)
    with file:
        try:
            with zipfile.ZipFile(file) as archive:
                return {name.removesuffix(".npy"): _rows(archive, name) for name in archive.namelist()}
        except RemoteFault:
            raise
        except Exception as error:  # zipfile and numpy raise whatever they like on damaged bytes
            raise Unreadable(f"{url}: no sound npz ({type(error).__name__}: {str(error)[:200]})") from error


def hash_bytes(value: object) -> bytes | None:
    """A sha256 in hex as its 32 bytes; None for what is none."""
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return None
    return data if len(data) == 32 else None


def _rows(archive: zipfile.ZipFile, name: str) -> int:
    with archive.open(name) as array:
        version = np.lib.format.read_magic(array)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(array)
    if dtype.kind != "f" or len(shape) != 2:
        raise ValueError(f"{name} is {dtype} of shape {shape}, expected floats in two dimensions")
    return int(shape[0])


def _uids_or_null(url: str, values: list[str | None]) -> pa.Array:
    try:
        return uid_array(values)
    except ValueError as error:
        raise Unreadable(f"{url}: {error}") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
