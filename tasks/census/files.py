"""Census of one metadata file, and of the npz beside it: its uids, hashes and scores, kept in short for the joins.

A unit is found done by its marker, named after a digest of its inputs, like a shard's. Cost: one read of four columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.census.shards import VERSION, finding, kept
from tasks.census.sidecars import METADATA, metadata_parts, npz_rows
from tasks.files.artefacts import digest, publish_json, publishing
from tasks.files.option_types import Strict
from tasks.files.sources import reader_of
from tasks.files.untrusted_parquet import Unreadable

ARRAYS = ("b32_img", "b32_txt", "l14_img", "l14_txt", "dedup")


class FileUnit(Strict):
    """One metadata file's census. `npz` is empty where there is none."""

    directory: Path
    pool: Path
    url: str
    name: str
    """The file's path below the directory that holds all metadata files."""
    npz: str = ""
    fingerprints: tuple[str, str] = ("", "")

    @property
    def key(self) -> str:
        """Digest of all that decides what the unit finds."""
        return digest([VERSION, self.model_dump(exclude={"directory", "pool"})])

    @property
    def part(self) -> Path:
        """The file's rows, columns METADATA."""
        return kept(self.directory) / f"metadata-{self.key}.parquet"

    @property
    def marker(self) -> Path:
        """The file's counts and findings, written last."""
        return self.part.with_suffix(".json")


def census_file(unit: FileUnit) -> Path:
    """Do one unit, unless its marker says it is done; returns the marker's path."""
    if not unit.marker.exists():
        reader, findings, rows = reader_of(unit.pool), list[dict[str, Any]](), 0
        name = unit.name
        with publishing(unit.part) as file, pq.ParquetWriter(file, METADATA, compression="zstd") as writer:
            try:
                for part in metadata_parts(unit.url, name, reader):
                    writer.write_table(part)
                    rows += part.num_rows
            except Unreadable as error:
                findings.append(finding("unreadable_metadata", name, detail=str(error)))
        if unit.npz:
            findings += _npz_findings(unit, rows if not findings else None)
        record = {"file": {"file": name, "rows": rows, "has_npz": bool(unit.npz)}, "findings": findings}
        publish_json(unit.marker, record)
    return unit.marker


def _npz_findings(unit: FileUnit, rows: int | None) -> Iterable[dict[str, Any]]:
    """What is wrong with the npz, of a file of `rows` rows (None: not known)."""
    name = unit.name.removesuffix(".parquet") + ".npz"
    try:
        found = npz_rows(unit.npz, reader_of(unit.pool))
    except Unreadable as error:
        return [finding("unreadable_npz", name, detail=str(error))]
    wrong = [f"{array} has {n:,}" for array, n in sorted(found.items()) if rows is not None and n != rows]
    wrong += [f"{array} is missing" for array in ARRAYS if array not in found]
    return [finding("npz_mismatch", name, detail=f"of {rows or 0:,} rows: {', '.join(wrong)}")] if wrong else []
