"""Units: one shard's worth of pool building, done once whatever gets killed.

A unit of a sheet writes its rows as a shard and indexes that; a unit of existing tars indexes one where it
is. Either ends with a part (the samples) and then a marker (the rejects), both named after a digest of the
unit's inputs. Giving the same unit again finds the marker and does nothing. Units are independent of each
other, so any of them may run anywhere, in any order.

Parts of tars are kept, in the home's ``indexed``, whatever pool they were made for: of a pool that grew, or in which
some files changed, only those are indexed. A sheet's parts are its pool's, and go when that is finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mgd_core.errors import UserError
from tasks.files.artefacts import digest, file_digest, publish_json, publishing, read_json
from tasks.files.option_types import Strict
from tasks.files.sources import fingerprint, reader_of
from tasks.pool.forms import PairForm, SampleForm
from tasks.pool.json_columns import part_table
from tasks.pool.shards import Sample, ShardIndex, index_shard, write_shard
from tasks.pool.sheets import REQUIRED, TABLE, TILES, open_sheet
from tasks.tables.published import write_parquet
from tasks.tables.uids import normalise

KEPT = "indexed"
"""Below a home: the parts of all tars that were indexed."""


class PoolError(UserError, ValueError):
    """A pool that cannot be used as it is; the message says what, where, why and what to do."""


class IndexJob(Strict):
    """One shard's worth of work. `start`, `stop`: rows of a sheet to write; None when a tar is indexed in
    place, `name` being what its rows call it."""

    directory: Path
    index: int
    source: str
    fingerprint: str
    name: str = ""
    split: str = ""
    start: int | None = None
    stop: int | None = None
    form: SampleForm = PairForm()
    """What its samples are, and how they are read."""

    @property
    def key(self) -> str:
        """Digest of all that decides what the unit makes, and of its place in the pool. A tar's address counts, since
        the fingerprints of two stores may agree by chance; a sheet's is of its bytes."""
        return self._digest({"directory"} if self.start is None else {"directory", "source"})

    @property
    def content(self) -> str:
        """The key, or for a tar the digest of what decides the unit's content only, in whichever pool it stands."""
        return self._digest({"directory", "index"}) if self.start is None else self.key

    def _digest(self, ignored: set[str]) -> str:
        return digest([self.form.version, self.model_dump(exclude={*ignored, "form"}) | self.form.identity()])

    @property
    def part(self) -> Path:
        """The unit's samples."""
        if self.start is None:
            return self.directory.parents[1] / KEPT / self.content[:2] / f"{self.content}.parquet"
        return self.directory / "parts" / f"{self.index:05d}-{self.key[:12]}.parquet"

    @property
    def marker(self) -> Path:
        """The unit's record, with its rejects, written last."""
        return self.part.with_suffix(".json")

    @property
    def shard(self) -> Path:
        """The tar that a sheet's unit writes."""
        return self.directory / "shards" / f"{self.index:05d}.tar"


def write_or_index_unit(unit: IndexJob) -> Path:
    """Do one unit, unless its marker says it is done; returns the marker's path."""
    if not is_done(unit):
        index = index_tar(unit) if unit.start is None else _write_and_index(unit)
        publish_index(unit, index)
    return unit.marker


def publish_index(unit: IndexJob, index: ShardIndex) -> None:
    """Publish a unit's part, then its marker: it is done."""
    with publishing(unit.part) as file:
        write_parquet(file, part_table(index.rows))
    named = any(row["named_uid"] for row in index.rows)
    record = {"key": unit.content, "part": file_digest(unit.part), "names_uids": named, "rejects": index.rejects}
    record |= {"notes": index.notes} if index.notes else {}
    publish_json(unit.marker, record)


def check_part(unit: IndexJob) -> None:
    """Raise PoolError unless a unit is done, and its samples are what was written."""
    check_done(unit)
    if read_marker(unit)["part"] != file_digest(unit.part):
        raise PoolError(f"{unit.part}: changed since it was written; remove it and give the same command again")


def check_done(unit: IndexJob) -> None:
    """Raise PoolError unless a unit is done."""
    if not is_done(unit):
        raise PoolError(f"{unit.part}: shard {unit.index} of the pool is not done; give the same command again")


def read_marker(unit: IndexJob) -> dict[str, Any]:
    """A unit's record; raises PoolError when it is not what was written."""
    try:
        record = read_json(unit.marker)
        complete = record["key"] == unit.content and {"part", "names_uids", "rejects"} <= record.keys()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PoolError(f"{unit.marker}: damaged ({error}); remove it and give the same command again") from error
    if not complete:
        raise PoolError(f"{unit.marker}: not the record of this unit; remove it and give the same command again")
    return dict(record)


def is_done(unit: IndexJob) -> bool:
    """True if the unit's marker is there (it comes last) and nobody removed what it stands for."""
    return unit.marker.exists() and unit.part.exists() and (unit.start is None or unit.shard.exists())


def sheet_fingerprint(sheet: Path) -> str:
    """Digest of the two files of a sheet."""
    return digest([file_digest(sheet / name) for name in (TILES, TABLE)])


def index_tar(unit: IndexJob) -> ShardIndex:
    """Index a unit's tar where it is; raises PoolError if it was replaced before or meanwhile."""
    reader = reader_of(unit.directory)
    _check_unchanged(unit, fingerprint(unit.source, reader))
    index = unit.form.index(unit.source, unit.name or unit.source, reader)
    _check_unchanged(unit, fingerprint(unit.source, reader))
    return index


def _write_and_index(unit: IndexJob) -> ShardIndex:
    """Write the unit's tiles as a shard, then index that shard as if it had come from elsewhere."""
    _check_unchanged(unit, sheet_fingerprint(Path(unit.source)))
    sheet = open_sheet(unit.source)
    rows = sheet.rows(unit.split).slice(unit.start, (unit.stop or 0) - (unit.start or 0)).to_pylist()
    write_shard(
        unit.shard, (_sample(f"{unit.index:05d}{i:05d}", row, sheet.png(row["tile"])) for i, row in enumerate(rows))
    )
    return index_shard(str(unit.shard), f"shards/{unit.shard.name}")


def _sample(key: str, row: dict[str, Any], png: bytes) -> Sample:
    record = {name: value for name, value in row.items() if name not in REQUIRED}
    return Sample(key, png, "png", row["text"], {"uid": normalise(row["uid"]), **record})


def _check_unchanged(unit: IndexJob, found: str) -> None:
    if found != unit.fingerprint:
        raise PoolError(f"{unit.source}: changed while the pool was being built; give the same command again")
