"""Census of one shard: what its tar holds, what its table and stats say, and where they disagree.

A unit reads the tar once, through the same index that a pool is built from, and leaves three files named after a
digest of its inputs: the samples, what was tried, and, last, a marker with the shard's counts and findings. Given
again, it finds the marker. Where the pool is not built yet, the unit leaves the pool's part as well, so that a
curation after a census need not read the tars again. Units are independent of each other.

Cost: that of indexing the shard, and its samples in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.census.sidecars import hash_bytes, read_attempts, read_stats
from tasks.files.artefacts import digest, publish_json, publishing
from tasks.files.option_types import Strict
from tasks.files.sources import reader_of
from tasks.files.untrusted_parquet import Unreadable
from tasks.pool.index_jobs import KEPT, IndexJob, index_tar, is_done, publish_index, write_or_index_unit
from tasks.pool.record import load_pool
from tasks.pool.shards import ShardIndex, index_shard
from tasks.pool.validation import DAMAGE, reject
from tasks.tables.published import write_parquet
from tasks.tables.uids import UID, uid_array, uid_hex

# Changes whenever equal inputs would give other bytes than before.
VERSION = 2
NUMBER = re.compile(r"(\d+)\.[^/]*$")
SUCCESS = "success"
SAMPLES = pa.schema(
    [
        ("uid", UID),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image_bytes", pa.int64()),
        ("image_hash", pa.binary(16)),
        ("pixel_hash", pa.binary(16)),
        ("caption_characters", pa.int32()),
        ("caption_words", pa.int32()),
        ("sha256", pa.binary(32)),
    ]
)


class CensusUnit(Strict):
    """One shard's census: the pool's unit (None: the tar is missing, only its files are there) and its files."""

    directory: Path
    pool: Path
    shard: str
    unit: IndexJob | None = None
    table: str = ""
    stats: str = ""
    fingerprints: tuple[str, str] = ("", "")

    @property
    def key(self) -> str:
        """Digest of all that decides what the unit finds."""
        named = self.model_dump(exclude={"directory", "pool", "unit"})
        return digest([VERSION, named, self.unit.content if self.unit else ""])

    def path(self, kind: str) -> Path:
        """The unit's file of a kind: samples, attempts, or marker."""
        suffix = "json" if kind == "marker" else f"{kind}.parquet"
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.shard.removesuffix(".tar"))[-40:]
        return kept(self.directory) / f"{slug}-{self.key}.{suffix}"


def kept(directory: Path) -> Path:
    """Where the parts of a home's censuses are, that of ``directory`` among them: what was seen of a file is not
    looked for again in a pool that grew."""
    return directory.parents[1] / KEPT / "census"


def census_shard(unit: CensusUnit) -> Path:
    """Do one unit, unless its marker says it is done; returns the marker's path."""
    if not unit.path("marker").exists():
        index = _index(unit)
        samples = _samples(index)
        attempts, counters, findings = _sidecars(unit)
        findings = [*index.rejects, *_in_tar(unit, index), *findings]
        if attempts is not None:
            findings += _disagreements(unit, index, attempts)
        if counters is not None and unit.unit is not None:
            findings += _miscounts(unit, index, counters)
        for kind, table in (("samples", samples), ("attempts", attempts)):
            if table is not None:
                with publishing(unit.path(kind)) as file:
                    write_parquet(file, table)
        publish_json(unit.path("marker"), {"shard": _shard_row(unit, index, attempts, counters), "findings": findings})
    return unit.path("marker")


def finding(kind: str, shard: str, member: str = "", uid: str | None = None, detail: str = "") -> dict[str, Any]:
    """A row of the findings table."""
    return reject(shard, member, kind, detail, uid)


def _index(unit: CensusUnit) -> ShardIndex:
    """The index of the unit's tar; where the pool still wants its part, that is published on the way."""
    if unit.unit is None:
        return ShardIndex([], [])
    if unit.unit.start is not None:  # a sheet: its shard is written by the pool's own unit
        if load_pool(unit.pool) is None:
            write_or_index_unit(unit.unit)
        return index_shard(str(unit.unit.shard), unit.shard)
    index = index_tar(unit.unit)
    if load_pool(unit.pool) is None and not is_done(unit.unit):
        publish_index(unit.unit, index)
    return index


def _samples(index: ShardIndex) -> pa.Table:
    columns: dict[str, Any] = {name: [] for name in SAMPLES.names}
    for row in index.rows:
        columns["image_bytes"].append(row["image_size"])
        columns["caption_characters"].append(len(row["text"]))
        columns["caption_words"].append(len(row["text"].split()))
        columns["sha256"].append(hash_bytes(row["upstream"].get("sha256")))
        for name in ("uid", "shard", "key", "width", "height", "image_hash", "pixel_hash"):
            columns[name].append(row[name])
    columns["uid"] = uid_array(columns["uid"])
    return pa.table([pa.array(columns[field.name], field.type) for field in SAMPLES], schema=SAMPLES)


def _sidecars(unit: CensusUnit) -> tuple[pa.Table | None, dict[str, int] | None, list[dict[str, Any]]]:
    """What was tried, the counters, and findings on files that cannot be read."""
    reader, findings = reader_of(unit.pool), []
    attempts, counters = None, None
    try:
        attempts = read_attempts(unit.table, unit.shard, reader) if unit.table else None
    except Unreadable as error:
        findings.append(finding("unreadable_table", unit.shard, detail=str(error)))
    try:
        counters = read_stats(unit.stats, reader) if unit.stats else None
    except Unreadable as error:
        findings.append(finding("unreadable_stats", unit.shard, detail=str(error)))
    return attempts, counters, findings


def _in_tar(unit: CensusUnit, index: ShardIndex) -> Iterable[dict[str, Any]]:
    """Samples whose members say different things, or that lack what others have."""
    some_json = any(row["json_offset"] is not None for row in index.rows)
    for row in index.rows:
        if some_json and row["json_offset"] is None:
            yield finding("missing_json", unit.shard, row["key"], row["uid"])
        told = row["upstream"].get("caption", row["upstream"].get("text"))
        if isinstance(told, str) and told.strip() != row["text"].strip():
            detail = f"txt {row['text'][:60]!r}, json {told[:60]!r}"
            yield finding("caption_differs", unit.shard, row["key"], row["uid"], detail)


def _disagreements(unit: CensusUnit, index: ShardIndex, attempts: pa.Table) -> Iterable[dict[str, Any]]:
    """uids that only the tar or only the shard's table has; nothing where the table names none."""
    if unit.unit is None or attempts["uid"].null_count:
        return
    pairs = zip(uid_hex(attempts["uid"]), attempts["status"].to_pylist(), strict=True)
    told = {uid for uid, status in pairs if status == SUCCESS}
    held = {row["uid"] for row in index.rows} | {row["uid"] for row in index.rejects if row["uid"]}
    # A sample whose uid could not be read is in the tar all the same, and a damaged tar says why itself.
    if not any(row["uid"] is None for row in index.rejects):
        for uid in sorted(told - held):
            yield finding("not_in_tar", unit.shard, uid=uid)
    for uid in sorted(held - told):
        yield finding("not_in_table", unit.shard, uid=uid)


def _miscounts(unit: CensusUnit, index: ShardIndex, counters: Mapping[str, int]) -> Iterable[dict[str, Any]]:
    held = len(index.rows) + sum(bool(row["member"]) and row["reason"] != "stray_member" for row in index.rejects)
    damaged = any(row["reason"] in DAMAGE for row in index.rejects)
    if counters["successes"] != held and not damaged:
        detail = f"the stats count {counters['successes']:,} successes, the tar holds {held:,} samples"
        yield finding("stats_mismatch", unit.shard, detail=detail)


def _shard_row(
    unit: CensusUnit, index: ShardIndex, attempts: pa.Table | None, counters: Mapping[str, int] | None
) -> dict[str, Any]:
    number = NUMBER.search(unit.shard)
    size = unit.unit.fingerprint.split(" ")[0] if unit.unit and unit.unit.start is None else None
    return {
        "shard": unit.shard,
        "number": int(number[1]) if number else None,
        "bytes": int(size) if size and size.isdigit() else None,
        "has_tar": unit.unit is not None,
        "has_table": bool(unit.table),
        "has_stats": bool(unit.stats),
        "names_uids": any(row["named_uid"] for row in index.rows),
        "samples": len(index.rows),
        "rejects": len(index.rejects),
        "attempted": attempts.num_rows if attempts is not None else (counters or {}).get("count"),
        "successes": (counters or {}).get("successes"),
    }
