"""Plans: which attempts go into which shard, made first, kept on disk, the same for the same sources and options.

`plan.parquet` has a row group a shard, `plan.json` the key of each; both lie below `<home>/sharding`. A shard's key is
a digest of its attempts and the options, so that a changed picture changes its shard's key and no other. Memory: one
shard's attempts, whatever their number.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from tasks.files.artefacts import digest, move_in, publish_json, read_json, reading, staged
from tasks.files.progress import begin, say
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteOptions
from tasks.sharding.attempts import PLAN, Attempt, ShardingError, attempts_of, digest_of, table_of
from tasks.sharding.options import Evaluation, ShardOptions
from tasks.sharding.sources import find_pictures

TOLD_EVERY = 5.0
"""Seconds after which it is said again how many pictures were found."""


@dataclass(frozen=True)
class ShardPlan:
    """A plan on disk: keys of its shards, attempts in all, damaged files among them, bytes that are read, about."""

    directory: Path
    key: str
    keys: tuple[str, ...]
    attempts: int
    damaged: int
    size: int
    first_damage: str = ""
    digits: int = 4
    """Of a sample's number in its shard."""
    classes: tuple[str, ...] = ()
    """Of an evaluation set for classification."""

    @property
    def shards(self) -> int:
        """How many shards it makes."""
        return len(self.keys)

    def shard(self, number: int) -> list[Attempt]:
        """The attempts of a shard, in order."""
        path = self.directory / "plan.parquet"
        with reading(path), pq.ParquetFile(path) as file:
            return attempts_of(file.read_row_group(number))

    @classmethod
    def load(cls, directory: Path) -> ShardPlan:
        """The plan in a directory; raises DamagedRecord."""
        record = read_json(directory / "plan.json")
        return cls(directory, **{**record, "keys": tuple(record["keys"]), "classes": tuple(record["classes"])})


def plan_shards(
    sources: Sequence[str],
    home: Path,
    options: ShardOptions,
    shard_size: int,
    remote: RemoteOptions | None = None,
    evaluation: Evaluation = "",
) -> ShardPlan:
    """List the sources and lay out their shards; raises SourceError or ShardingError where one is none, or has none."""
    begin("list the pictures")
    reader = Reader(remote or RemoteOptions())
    found = find_pictures(list(sources), reader, options)
    attempts = (one for source in found for one in source.attempts(reader, options))
    place = home / "sharding"
    keys: list[str] = []
    classes: dict[str, None] = {}
    total, damaged, size, first = 0, 0, 0, ""
    with staged(place, "plan.parquet") as file:
        with pq.ParquetWriter(file, PLAN, compression="zstd") as writer:
            for group in _groups(_told(attempts), shard_size):
                writer.write_table(table_of(group), row_group_size=len(group))
                keys.append(
                    digest([options.identity(), evaluation, len(keys), digits_of(shard_size), digest_of(group)])
                )
                if evaluation == "classification":
                    classes |= {_class(one): None for one in group if not one.error}
                bad = [one for one in group if one.kind == "damage"]
                first = first or (f"{bad[0].url}: {bad[0].error}" if bad else "")
                total, damaged = total + len(group), damaged + len(bad)
                size += sum(one.size for one in group)
        key = digest([keys, shard_size, sorted(classes)])
        directory = place / key[:16]
        move_in(file, directory / "plan.parquet")
    plan = ShardPlan(
        directory, key, tuple(keys), total, damaged, size, first, digits_of(shard_size), tuple(sorted(classes))
    )
    publish_json(directory / "plan.json", {one.name: getattr(plan, one.name) for one in fields(plan)[1:]})
    return plan


def digits_of(shard_size: int) -> int:
    """Digits of a sample's number in its shard: four, as DataComp's keys have, or as many as it takes."""
    return max(4, len(str(shard_size - 1)))


def _class(attempt: Attempt) -> str:
    if attempt.caption is None:
        raise ShardingError(
            f"{attempt.url}: what class it is of is not known beforehand; an evaluation set for classification is made "
            "of class folders, or of a listing whose caption_col is the class"
        )
    return attempt.caption


def _groups(attempts: Iterator[Attempt], size: int) -> Iterator[list[Attempt]]:
    while group := list(islice(attempts, size)):
        yield group


def _told(attempts: Iterable[Attempt]) -> Iterator[Attempt]:
    """The attempts; every few seconds it is said how many there were."""
    last = time.monotonic()
    for number, one in enumerate(attempts, start=1):
        if not number % 1024 and time.monotonic() - last > TOLD_EVERY:
            last = time.monotonic()
            say(f"{number:,} pictures listed so far")
        yield one
