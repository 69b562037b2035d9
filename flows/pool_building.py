"""What every flow that trains shares: the pool of a catalog, built shard by shard, and the device, taken in turn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from flows.runtime.device import each_device, free_device
from flows.runtime.in_flight import in_flight
from flows.runtime.locks import exclusive
from flows.runtime.operating import unit
from flows.shard import write_shards
from mgd_core.training.determinism import environment
from tasks.catalog.catalogs import BaseCatalog, CatalogError
from tasks.catalog.device_options import device_in_hand, kind_of_device, torch_device
from tasks.curation.beforehand import check_beforehand, check_pool
from tasks.files.progress import announce, begin, say
from tasks.homes.opening import own
from tasks.modality.machine import devices_of
from tasks.modality.registry import prepared
from tasks.pool import index_jobs as units
from tasks.pool import pools
from tasks.runs.run import Run, WorkDirectory
from tasks.sharding.finishing import summary
from tasks.sharding.pools import shards_of


@unit("index-shard", "shard {unit.index}")
def index_shard(unit: units.IndexJob) -> None:
    """Write or index one shard of the pool."""
    units.write_or_index_unit(unit)


def build_pool(options: BaseCatalog, home: Path) -> pools.PoolRecord:
    """Build the catalog's pool, or find it built; what can be known before a training is looked at here."""
    check_beforehand(options, home)
    pool = index_units(pools.plan_pool(shard_pool(options, home), home, options.pool.build_options()))
    check_pool(options, pool)
    return pool


def shard_pool(options: BaseCatalog, home: Path) -> str | list[str]:
    """The tars or the sheet that the catalog's pool is made of; pictures that are in none are sharded first."""
    begin("list the pool's files")
    build = options.pool.build_options()
    shards = shards_of(options.pool.sources, home, build, options.pool.sharding)
    if shards is None:
        return options.pool.sources
    if not shards.are_there:
        out, workers = str(shards.directory), options.runtime.runner.workers or options.runtime.workers or 1
        say(summary(out, write_shards(shards.plan, out, home, shards.options, build, workers)))
    return str(shards.directory)


def index_units(plan: pools.PoolPlan) -> pools.PoolRecord:
    """Index what is not indexed of a pool, a task a shard."""
    pending = pools.pending_units(plan)
    for done, _ in enumerate(in_flight(index_shard, pending), start=1):
        announce("index the pool", done, len(pending))
    begin("join the pool's tables")
    return pools.finish_pool(plan)


@unit("prepare-pool", "{what}: part {part}")
def prepare_part(part: int, directory: Path, what: str) -> None:
    """Make one part of what a pool is turned into before it is trained on."""
    next(one for one in prepared(directory) if one.what == what).make(part)


def prepare_pool(directory: Path) -> None:
    """Make what is not made of what a run's pool is turned into, a task a part."""
    begin("lay out what the pool is turned into")
    for one in prepared(directory):
        pending = one.pending()
        if pending:
            announce(one.what, 0, len(pending))
        for done, _ in enumerate(in_flight(prepare_part, pending, directory, one.what), start=1):
            announce(one.what, done, len(pending))
        if not one.is_whole:
            one.finish()


@contextmanager
def device_of(work: WorkDirectory) -> Iterator[None]:
    """A device for a run's or a study's training, for the block.

    Raises:
        RunMismatch: it would give other bits than those that the work was begun with.
    """
    own(work.home, work.id)
    runtime = work.catalog.runtime
    with free_device(devices_of(runtime), work.directory) as device:
        _check_environment(work, device)
        yield


def _check_environment(work: WorkDirectory, device: str) -> None:
    found = environment(torch_device(device), work.catalog.runtime.threads)
    work.check_same({"environment": found, "versions": work.record["versions"]})


def run_device(directory: Path) -> AbstractContextManager[None]:
    """A device for a training of the run in ``directory``."""
    return device_of(Run.load(directory))


@contextmanager
def rank_devices(directory: Path) -> Iterator[tuple[str, ...]]:
    """A device for each rank of a training of the run in ``directory``, as PyTorch calls it, for the block; on CPUs,
    one that all share."""
    run = Run.load(directory)
    runtime = run.catalog.runtime
    devices = devices_of(runtime)
    if runtime.ranks == 1 or kind_of_device(devices[0]) == "cpu":
        with device_of(run):
            yield (device_in_hand(runtime),) * runtime.ranks
        return
    if len(devices) < runtime.ranks:
        raise CatalogError(
            f"catalog '{run.catalog.name}': runtime.ranks = {runtime.ranks} needs as many devices, and this machine "
            f"has {len(devices)} ({', '.join(devices)}). Take fewer ranks, or a machine with more"
        )
    own(run.home, run.id)
    taken = devices[: runtime.ranks]
    with each_device(taken, run.directory):
        for device in taken:
            _check_environment(run, device)
        yield tuple(torch_device(device) for device in taken)


@contextmanager
def only_flow(run: Run) -> Iterator[None]:
    """The lock of a run: whoever else works on it, here or elsewhere, is waited for."""

    def waiting(holder: str) -> None:
        say(f"run {run.id} is worked on by process {holder or '(unknown)'}; waiting until that one ends")

    with exclusive(run.home / ".locks" / "runs" / f"{run.id}.lock", note=str(os.getpid()), on_wait=waiting):
        own(run.home, run.id)
        yield
