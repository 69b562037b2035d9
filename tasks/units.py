"""Units: one shard's worth of pool building, done once whatever gets killed.

A unit of a sheet writes its rows as a shard and indexes that; a unit of existing tars indexes one where it
is. Either ends with a part (the samples) and then a marker (the rejects), both named after a digest of the
unit's inputs. Giving the same unit again finds the marker and does nothing. Units are independent of each
other, so any of them may run anywhere, in any order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from tasks.artefacts import digest, file_digest, publish_json, publishing
from tasks.shards import Sample, ShardIndex, index_shard, write_shard
from tasks.sheets import REQUIRED, TABLE, TILES, open_sheet
from tasks.sources import fingerprint
from tasks.tables import write_parquet
from tasks.uids import normalise
from tasks.upstream import part_table

# Changes whenever equal inputs would give other bytes than before.
VERSION = 1


class PoolError(ValueError):
    """A pool that cannot be used as it is; the message says what, where, why and what to do."""


class ShardUnit(BaseModel):
    """One shard's worth of work. `start`, `stop`: rows of a sheet to write; None when a tar is indexed in
    place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path
    index: int
    source: str
    fingerprint: str
    split: str = ""
    start: int | None = None
    stop: int | None = None

    @property
    def key(self) -> str:
        """Digest of all that decides what the unit makes. A tar's address does, for it stands in its rows; a
        sheet's does not."""
        ignored = {"directory"} if self.start is None else {"directory", "source"}
        return digest([VERSION, self.model_dump(exclude=ignored)])

    @property
    def part(self) -> Path:
        """The unit's samples."""
        return self.directory / "parts" / f"{self.index:05d}-{self.key[:12]}.parquet"

    @property
    def marker(self) -> Path:
        """The unit's record, with its rejects, written last."""
        return self.part.with_suffix(".json")

    @property
    def shard(self) -> Path:
        """The tar that a sheet's unit writes."""
        return self.directory / "shards" / f"{self.index:05d}.tar"


def write_or_index_unit(unit: ShardUnit) -> Path:
    """Do one unit, unless its marker says it is done; returns the marker's path."""
    if not is_done(unit):
        index = _index_tar(unit) if unit.start is None else _write_and_index(unit)
        with publishing(unit.part) as file:
            write_parquet(file, part_table(index.rows))
        publish_json(unit.marker, {"key": unit.key, "rejects": index.rejects})
    return unit.marker


def read_part(unit: ShardUnit) -> pa.Table:
    """The samples of a unit that is done; raises PoolError when it is not."""
    if not is_done(unit):
        raise PoolError(
            f"{unit.part}: shard {unit.index} of the pool is not done; give the same command again"
        )
    with pq.ParquetFile(unit.part) as file:
        return file.read()


def is_done(unit: ShardUnit) -> bool:
    """True if the unit's marker is there (it comes last) and nobody removed what it stands for."""
    return unit.marker.exists() and unit.part.exists() and (unit.start is None or unit.shard.exists())


def sheet_fingerprint(sheet: Path) -> str:
    """Digest of the two files of a sheet."""
    return digest([file_digest(sheet / name) for name in (TILES, TABLE)])


def _index_tar(unit: ShardUnit) -> ShardIndex:
    _check_unchanged(unit, fingerprint(unit.source))
    return index_shard(unit.source)


def _write_and_index(unit: ShardUnit) -> ShardIndex:
    """Write the unit's tiles as a shard, then index that shard as if it had come from elsewhere."""
    _check_unchanged(unit, sheet_fingerprint(Path(unit.source)))
    sheet = open_sheet(unit.source)
    rows = sheet.rows(unit.split).slice(unit.start, (unit.stop or 0) - (unit.start or 0)).to_pylist()
    write_shard(
        unit.shard,
        (_sample(f"{unit.index:05d}{i:05d}", row, sheet.png(row["tile"])) for i, row in enumerate(rows)),
    )
    return index_shard(str(unit.shard), f"shards/{unit.shard.name}")


def _sample(key: str, row: dict[str, Any], png: bytes) -> Sample:
    record = {name: value for name, value in row.items() if name not in REQUIRED}
    return Sample(key, png, "png", row["text"], {"uid": normalise(row["uid"]), **record})


def _check_unchanged(unit: ShardUnit, found: str) -> None:
    if found != unit.fingerprint:
        raise PoolError(f"{unit.source}: changed while the pool was being built; give the same command again")
