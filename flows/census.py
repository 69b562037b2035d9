"""The flow `census`: what is missing from a pool, damaged, doubled or drifted, shard by shard.

Composition only, as in `flows.curate`: the units say themselves what is done, so the same command goes on after any
interruption, and a census taken again after some shards were fetched anew reads those only.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from flows.pool_building import shard_pool
from flows.runtime.artifacts import show
from flows.runtime.in_flight import in_flight
from flows.runtime.operating import stage, unit
from flows.runtime.parameters import CatalogName
from flows.runtime.runners import run_flow
from tasks.catalog.catalogs import find_catalog, load_pair_catalog
from tasks.census import files as census_files
from tasks.census import shards as census_shards
from tasks.census import taking as censuses
from tasks.census.verdict import CensusRecord
from tasks.files.plurals import counted
from tasks.files.progress import announce, begin, say
from tasks.modality.pairs.target_check import check_targets, target_pictures


@unit("census-shard", "shard {unit.shard}")
def census_shard(unit: census_shards.CensusUnit) -> Path:
    """Take the census of one shard."""
    return census_shards.census_shard(unit)


@unit("census-file", "metadata {unit.url}")
def census_file(unit: census_files.FileUnit) -> Path:
    """Take the census of one metadata file."""
    return census_files.census_file(unit)


@unit("census-tables")
def finish(plan: censuses.CensusPlan) -> CensusRecord:
    """Join what the units found, and link the page in Prefect."""
    record = censuses.finish_census(plan)
    page = plan.directory / "census.html"
    show(plan.directory.parents[1], page, "census", record.pool_id, [line.model_dump() for line in record.lines])
    return record


@stage("census")
def census(catalog: CatalogName, home: str = "runs", overrides: dict[str, Any] | None = None) -> str:
    """Take the census of a catalog's pool; what was read before and is as it was is not read again. Returns the
    census's directory.

    Args:
        catalog: the catalog whose pool is looked through: one that comes with mgd, or a TOML file.
        home: directory of all runs, pools and tables, where the flow runs.
        overrides: keys of the catalog said otherwise, by their dotted names, say {"pool.source": "shards/*.tar"}.
    """
    options, base = load_pair_catalog(find_catalog(catalog), "mgd census", overrides), Path(home).resolve()
    begin("look at the targets")
    for note in check_targets(options, base):
        say(note)
    pictures = target_pictures(options, base)
    plan = censuses.plan_census(shard_pool(options, base), base, options.pool.build_options(), options.census, pictures)
    shards, files = censuses.pending(plan)
    known = len(plan.shards) - len(shards)
    if known:
        say(f"census: {known:,} of the pool's {counted(len(plan.shards), 'shard')} were looked at before")
    taken = chain(in_flight(census_file, files), in_flight(census_shard, shards))
    for done, _ in enumerate(taken, start=1):
        announce("census", done, len(files) + len(shards))
    begin("join what was found")
    finish.submit(plan).result()
    return str(plan.directory)


def run_census(catalog: str, home: Path, overrides: dict[str, Any]) -> Path:
    """Run the flow in this process."""
    return Path(run_flow(census, catalog, str(home), overrides))
