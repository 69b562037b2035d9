"""What every flow that trains shares: the pool of a catalog, built shard by shard, and the device, taken in turn."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.runtime.device import device_lock
from tasks.catalog.catalogs import BaseCatalog
from tasks.curation.beforehand import check_beforehand, check_pool
from tasks.files.progress import announce, begin
from tasks.pool import index_jobs as units
from tasks.pool import pools
from tasks.runs.run import Run


@task(name="index-shard", task_run_name="shard {unit.index}", cache_policy=NO_CACHE, persist_result=False)
def index_shard(unit: units.IndexJob) -> None:
    """Write or index one shard of the pool."""
    units.write_or_index_unit(unit)


def build_pool(options: BaseCatalog, home: Path) -> pools.PoolRecord:
    """Build the catalog's pool, or find it built; what can be known before a training is looked at here."""
    check_beforehand(options, home)
    begin("list the pool's files")
    plan = pools.plan_pool(options.pool.sources, home, options.pool.build_options())
    futures = index_shard.map(pools.pending_units(plan))
    for done, future in enumerate(futures, start=1):
        future.result()
        announce("index the pool", done, len(futures))
    begin("join the pool's tables")
    pool = pools.finish_pool(plan)
    check_pool(options, pool)
    return pool


def device_of(directory: Path) -> AbstractContextManager[None]:
    """The lock of the device that a run trains on."""
    run = Run.load(directory)
    return device_lock(run.home, run.catalog.runtime.device)
