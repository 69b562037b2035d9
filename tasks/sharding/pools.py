"""Pools of pictures that are in no tars yet: where their shards lie in a home, and whether they are there.

What a catalog's `pool.source` names is sharded first where it has to be, or where its section `pool.shard` says so,
into `<home>/shards/<name>-<key>`; the pool is then made of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tasks.files.remote_files import Reader
from tasks.files.source_patterns import each_source
from tasks.homes.working_copies import at_hand
from tasks.pool.record import BuildOptions
from tasks.sharding.finishing import finished_meta
from tasks.sharding.options import ShardOptions
from tasks.sharding.places import Place
from tasks.sharding.plans import ShardPlan, plan_shards
from tasks.sharding.sources import needs_sharding


@dataclass(frozen=True)
class PoolShards:
    """The shards that a pool is made of: their plan, options, and directory."""

    plan: ShardPlan
    options: ShardOptions
    directory: Path

    @property
    def are_there(self) -> bool:
        """Whether they are complete."""
        return finished_meta(Place(str(self.directory)), self.plan) is not None


def shards_of(
    source: str | list[str], home: Path, build: BuildOptions, shard: ShardOptions | None
) -> PoolShards | None:
    """What a source is sharded into before a pool is made of it; None where it is tars or a sheet, and `shard` does not
    ask for it. Raises SourceError or ShardingError."""
    if not build.form.has_pictures:
        return None
    options = shard or ShardOptions()
    if shard is None and not needs_sharding(source, Reader(build.remote), options):
        return None
    sources = [source] if isinstance(source, str) else source
    plan = plan_shards(sources, home, options, build.shard_size, build.remote)
    last = each_source(sources)[0].rstrip("/").rpartition("/")[2]
    slug = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:40] or "pool"
    return PoolShards(plan, options, home / "shards" / f"{slug}-{plan.key[:12]}")


def tars_of(
    source: str | list[str], home: Path, build: BuildOptions, shard: ShardOptions | None
) -> str | list[str] | None:
    """The tars or the sheet that a pool is made of: the source itself, or its shards; None where these are not."""
    shards = shards_of(source, home, build, shard)
    if shards is None:
        return source
    at_hand(shards.directory)
    return str(shards.directory) if shards.are_there else None
