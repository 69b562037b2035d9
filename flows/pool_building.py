"""What every flow that trains shares: the pool of a catalog, built shard by shard, and the device, taken in turn."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from flows.runtime.device import device_lock
from flows.runtime.locks import exclusive
from flows.runtime.operating import unit
from tasks.catalog.catalogs import BaseCatalog
from tasks.curation.beforehand import check_beforehand, check_pool
from tasks.files.progress import announce, begin, say
from tasks.modality.registry import prepared
from tasks.pool import index_jobs as units
from tasks.pool import pools
from tasks.runs.run import Run


@unit("index-shard", "shard {unit.index}")
def index_shard(unit: units.IndexJob) -> None:
    """Write or index one shard of the pool."""
    units.write_or_index_unit(unit)


def build_pool(options: BaseCatalog, home: Path) -> pools.PoolRecord:
    """Build the catalog's pool, or find it built; what can be known before a training is looked at here."""
    check_beforehand(options, home)
    begin("list the pool's files")
    pool = index_units(pools.plan_pool(options.pool.sources, home, options.pool.build_options()))
    check_pool(options, pool)
    return pool


def index_units(plan: pools.PoolPlan) -> pools.PoolRecord:
    """Index what is not indexed of a pool, a task a shard."""
    pending = pools.pending_units(plan)
    if not pending:
        say(f"pool {plan.pool_id}: all of its {len(plan.units):,} files were indexed before, and nothing changed")
    for done, future in enumerate(index_shard.map(pending), start=1):
        future.result()
        announce("index the pool", done, len(pending))
    begin("join the pool's tables")
    return pools.finish_pool(plan)


@unit("prepare-pool", "{what}: part {part}")
def prepare_part(directory: Path, what: str, part: int) -> None:
    """Make one part of what a pool is turned into before it is trained on."""
    next(one for one in prepared(directory) if one.what == what).make(part)


def prepare_pool(directory: Path) -> None:
    """Make what is not made of what a run's pool is turned into, a task a part."""
    begin("lay out what the pool is turned into")
    for one in prepared(directory):
        pending = one.pending()
        futures = [prepare_part.submit(directory, one.what, part) for part in pending]
        for done, future in enumerate(futures):
            announce(one.what, done, len(futures))
            future.result()
        if not one.is_whole:
            one.finish()
            announce(one.what, len(futures), len(futures))


def device_of(directory: Path) -> AbstractContextManager[None]:
    """The lock of the device that a run trains on."""
    run = Run.load(directory)
    return device_lock(run.home, run.catalog.runtime.device)


def only_flow(run: Run) -> AbstractContextManager[None]:
    """The lock of a run: whoever else works on it is waited for."""

    def waiting(holder: str) -> None:
        say(f"run {run.id} is worked on by process {holder or '(unknown)'}; waiting until that one ends")

    return exclusive(run.home / ".locks" / "runs" / f"{run.id}.lock", note=str(os.getpid()), on_wait=waiting)
