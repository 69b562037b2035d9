"""Plans: which attempts go into which shard, made first, kept on disk, the same for the same sources and options.

`plan-NNNNN.parquet` have a row group a shard, `PART` of them each, `plan.json` says the rest; they lie below
`<home>/sharding`. A shard's key is a digest of its attempts and the options, so that a changed picture changes its
shard's key and no other. Memory: one shard's attempts, whatever their number, and 32 characters a shard.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from pathlib import Path

import pyarrow.parquet as pq

from mgd_core import whole_files
from tasks.files.artefacts import digest, publish_json, reading
from tasks.files.progress import begin, say
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteOptions
from tasks.files.scratch import scratch
from tasks.sharding.attempts import PLAN, Attempt, ShardingError, attempts_of, digest_of, table_of
from tasks.sharding.options import Evaluation, ShardOptions
from tasks.sharding.sources import find_pictures

TOLD_EVERY = 5.0
"""Seconds after which it is said again how many pictures were found."""
PART = 64
"""Shards of a part of a plan: a reader of one shard reads the footer of its part, not of all."""


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
        return planned_attempts(self.directory, number)


def planned_attempts(directory: Path, number: int) -> list[Attempt]:
    """The attempts of a shard of the plan in a directory, in order; raises DamagedRecord."""
    path = directory / _part(number // PART)
    with reading(path), pq.ParquetFile(path) as file:
        return attempts_of(file.read_row_group(number % PART))


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
    outline = _Outline(options, evaluation, digits_of(shard_size))
    with scratch(home, "plan") as work:
        _write(attempts, shard_size, work, outline)
        classes = tuple(sorted(outline.classes))
        key = digest([outline.keys, shard_size, classes])
        directory = home / "sharding" / key[:16]
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(work.iterdir()):
            whole_files.move_in(path, directory / path.name)
    said = (outline.attempts, outline.damaged, outline.size, outline.first_damage, outline.digits)
    plan = ShardPlan(directory, key, tuple(outline.keys), *said, classes)
    publish_json(directory / "plan.json", {one.name: getattr(plan, one.name) for one in fields(plan)[1:]})
    return plan


@dataclass
class _Outline:
    """What is known of a plan while it is written."""

    options: ShardOptions
    evaluation: Evaluation
    digits: int
    keys: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    attempts: int = 0
    damaged: int = 0
    size: int = 0
    first_damage: str = ""

    def add(self, group: list[Attempt]) -> None:
        """Take note of the next shard."""
        made_of = [self.options.identity(), self.evaluation, len(self.keys), self.digits, digest_of(group)]
        self.keys.append(digest(made_of))
        if self.evaluation == "classification":
            self.classes |= {_class(one) for one in group if not one.error}
        damaged = [one for one in group if one.kind == "damage"]
        if damaged and not self.first_damage:
            self.first_damage = f"{damaged[0].url}: {damaged[0].error}"
        self.attempts, self.damaged = self.attempts + len(group), self.damaged + len(damaged)
        self.size += sum(one.size for one in group)


def _write(attempts: Iterator[Attempt], shard_size: int, work: Path, outline: _Outline) -> None:
    """Write the parts of a plan."""
    groups, number = _groups(_told(attempts), shard_size), 0
    while part := list(islice(groups, 1)):
        with pq.ParquetWriter(work / _part(number), PLAN, compression="zstd") as writer:
            for group in chain(part, islice(groups, PART - 1)):
                writer.write_table(table_of(group), row_group_size=len(group))
                outline.add(group)
        number += 1


def _part(number: int) -> str:
    return f"plan-{number:05d}.parquet"


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
