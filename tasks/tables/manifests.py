"""Manifests: the counts that a round ended with, as a file that says where it came from.

A manifest is a Parquet file of (uid, count > 0), sorted by uid, with its provenance (catalog digest, pool,
round, digest of the manifest before it, versions) as JSON in the schema's metadata. Equal counts and
provenance give equal bytes, so its digest names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from tasks.files.artefacts import canonical_json, file_digest, publishing, reading
from tasks.tables.published import write_parquet
from tasks.tables.schemas import COUNTS
from tasks.tables.streams import RowWriter
from tasks.tables.uids import Bytes16, uid_array, uid_bytes, uid_hex

PROVENANCE = b"mgd.manifest"


class ManifestError(UserError, ValueError):
    """Counts that make no manifest, or a file that is none."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """A subset: uids (numpy S16, sorted, distinct) and how often each stands in it (whole numbers above
    0)."""

    path: Path
    uids: Bytes16
    counts: npt.NDArray[np.int64]
    provenance: Mapping[str, Any]

    @property
    def total(self) -> int:
        """Size of the multiset."""
        return int(self.counts.sum())

    @property
    def digest(self) -> str:
        """Digest of the manifest's file: its name for whatever is made from it."""
        return file_digest(self.path)


def write_manifest(
    run_dir: str | Path,
    round: int,
    uids: Iterable[Any] | pa.Array | pa.ChunkedArray,
    counts: npt.ArrayLike,
    provenance: Mapping[str, Any],
) -> Path:
    """Publish `<run_dir>/manifests/round-003.parquet` and return its path; samples of count 0 are left out.

    Raises ManifestError for a count that is negative or not whole, a uid given twice, or nothing left.
    """
    named, numbers = uid_bytes(uids), np.asarray(counts)
    _check(named, numbers, f"round {round}")
    kept = np.flatnonzero(numbers > 0)
    kept = kept[np.argsort(named[kept], kind="stable")]
    columns = [uid_array(named[kept]), pa.array(numbers[kept].astype(np.int32))]
    path = manifest_path(run_dir, round)
    with publishing(path) as file:
        write_parquet(file, pa.table(columns, schema=_schema(provenance)))
    return path


class ManifestRows:
    """A manifest to add to, piece by piece; the pieces ascend by uid, and no count is 0."""

    def __init__(self, file: BinaryIO, provenance: Mapping[str, Any]) -> None:
        self._schema = _schema(provenance)
        self._rows = RowWriter(file, self._schema)

    def add(self, uids: pa.Array, counts: npt.NDArray[np.int64]) -> None:
        """Write Arrow uids (n,) and their counts (n,) after those before."""
        self._rows.add(pa.table([uids, pa.array(counts.astype(np.int32))], schema=self._schema))

    def close(self, whose: str) -> None:
        """End the file; raises ManifestError where there is nothing in it."""
        self._rows.close()
        if not self._rows.rows:
            raise _nothing_left(whose)

    def release(self) -> None:
        """Let go of the file, finished or not."""
        self._rows.release()


@contextmanager
def streaming_manifest(run_dir: str | Path, round: int, provenance: Mapping[str, Any]) -> Iterator[ManifestRows]:
    """As `write_manifest`, for counts that come piece by piece and in order, to the same bytes."""
    with publishing(manifest_path(run_dir, round)) as file:
        rows = ManifestRows(file, provenance)
        try:
            yield rows
            rows.close(f"round {round}")
        finally:
            rows.release()


def manifest_path(run_dir: str | Path, round: int) -> Path:
    """Where a round's manifest lies."""
    return Path(run_dir) / "manifests" / f"round-{round:03d}.parquet"


def read_manifest(path: str | Path) -> Manifest:
    """The manifest in `path`; raises ManifestError when the file is something else."""
    with reading(path), pq.ParquetFile(path) as file:
        table = file.read()
    metadata = table.schema.metadata or {}
    if PROVENANCE not in metadata or table.schema.names != COUNTS.names:
        raise ManifestError(
            f"{path}: no manifest (columns {table.schema.names}); they lie in <home>/runs/<run>/manifests/"
        )
    counts = table["count"].to_numpy().astype(np.int64)
    return Manifest(Path(path), uid_bytes(table["uid"]), counts, json.loads(metadata[PROVENANCE]))


def _schema(provenance: Mapping[str, Any]) -> pa.Schema:
    return COUNTS.with_metadata({PROVENANCE: canonical_json(dict(provenance))})


def _nothing_left(whose: str) -> ManifestError:
    return ManifestError(f"{whose}: every sample was dropped; a smaller step (p), or fewer rounds, keeps some")


def _check(uids: Bytes16, counts: npt.NDArray[Any], whose: str) -> None:
    if counts.shape != uids.shape:
        raise ManifestError(f"{whose}: {len(uids)} uids but counts of shape {counts.shape}")
    if not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ManifestError(f"{whose}: counts are whole numbers from 0 on; got {counts.dtype}, lowest {counts.min()}")
    if not (counts > 0).any():
        raise _nothing_left(whose)
    distinct, seen = np.unique(uids, return_counts=True)
    if len(distinct) < len(uids):
        raise ManifestError(f"{whose}: uid {uid_hex(distinct[seen > 1][:1])[0]} is given more than once")
