"""A census in one process, as flows take it unit by unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.census.files import census_file
from tasks.census.shards import census_shard
from tasks.census.taking import finish_census, plan_census
from tasks.census.verdict import CensusRecord
from tasks.pool.census_kinds import CensusOptions
from tasks.pool.pools import BuildOptions


def take_census(
    source: str | Path | Sequence[str],
    home: str | Path,
    options: BuildOptions | None = None,
    limits: CensusOptions | None = None,
    pictures: Path | None = None,
) -> CensusRecord:
    """Take, or find taken, the census of a pool, unit by unit in this process."""
    plan = plan_census(source, home, options, limits, pictures)
    for unit in plan.shards:
        census_shard(unit)
    for file in plan.files:
        census_file(file)
    return finish_census(plan)
