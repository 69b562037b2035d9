"""The flow `census`: what is missing from a pool, damaged, doubled or drifted, shard by shard.

Composition only, as in `flows.curate`: the units say themselves what is done, so the same command goes on after any
interruption, and a census taken again after some shards were fetched anew reads those only.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.runtime.artifacts import show
from flows.runtime.runners import run_flow
from flows.runtime.session import record_session
from tasks import census as censuses
from tasks import census_files, census_shards
from tasks.catalog import find_catalog, load_catalog, load_pair_catalog
from tasks.modality.pairs.target_check import check_targets, target_pictures
from tasks.progress import announce, begin, say


@task(name="census-shard", task_run_name="shard {unit.shard}", cache_policy=NO_CACHE, persist_result=False)
def census_shard(unit: census_shards.CensusUnit) -> Path:
    """Take the census of one shard."""
    return census_shards.census_shard(unit)


@task(name="census-file", task_run_name="metadata {unit.url}", cache_policy=NO_CACHE, persist_result=False)
def census_file(unit: census_files.FileUnit) -> Path:
    """Take the census of one metadata file."""
    return census_files.census_file(unit)


@task(name="census-tables", cache_policy=NO_CACHE, persist_result=False)
def finish(plan: censuses.CensusPlan) -> censuses.CensusRecord:
    """Join what the units found, and link the page in Prefect."""
    record = censuses.finish_census(plan)
    page = plan.directory / "census.html"
    show(page, "census", record.pool_id, [line.model_dump() for line in record.lines])
    return record


@flow(name="census", flow_run_name="census {catalog}", on_running=[record_session], log_prints=False)
def census(catalog: str, home: str = "runs") -> str:
    """Take the census of a catalog's pool; returns the census's directory."""
    options, base = load_pair_catalog(find_catalog(catalog), "mgd census"), Path(home).resolve()
    begin("look at the targets")
    for note in check_targets(options, base):
        say(note)
    pictures = target_pictures(options, base)
    begin("list the pool's files")
    plan = censuses.plan_census(options.pool.sources, base, options.pool.build_options(), options.census, pictures)
    shards = [unit for unit in plan.shards if not unit.path("marker").exists()]
    files = [unit for unit in plan.files if not unit.marker.exists()]
    futures = [*census_file.map(files), *census_shard.map(shards)]
    for done, future in enumerate(futures, start=1):
        future.result()
        announce("census", done, len(futures))
    begin("join what was found")
    finish(plan)
    return str(plan.directory)


def run_census(catalog: str, home: Path) -> Path:
    """Run the flow in this process with the task runner that the catalog asks for."""
    runtime = load_catalog(find_catalog(catalog)).runtime
    return Path(run_flow(census, runtime, catalog, str(home)))
