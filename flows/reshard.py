"""The flow `reshard`: a subset of any pool as WebDataset shards; tars that are no pool yet are indexed first."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from flows.pool_building import index_units
from flows.runtime.in_flight import in_flight
from flows.runtime.operating import stage, unit
from flows.runtime.parameters import CatalogName
from tasks.export.reshard import ReshardOptions
from tasks.export.reshard import reshard as write_shards
from tasks.export.shard_copies import Copied
from tasks.files.progress import say
from tasks.pool.naming import indexing


@unit("write-shard", "shard {number}")
def write_shard(number: int, write: Callable[[int], Copied]) -> Copied:
    """Copy the samples of one shard; its record says that it is done."""
    return write(number)


def _as_tasks(write: Callable[[int], Copied], numbers: Sequence[int]) -> Generator[Copied, None, None]:
    """A task a shard, on the flow's task runner."""
    return in_flight(write_shard, numbers, write)


@stage("reshard")
def reshard(
    pool: str,
    out: str,
    home: str = "runs",
    subset: str | None = None,
    shard_size: int = 10_000,
    seed: int = 0,
    workers: int | None = None,
    max_lost: float = 0,
    overwrite: bool = False,
    catalog: CatalogName | None = None,
) -> str:
    """Write a subset of a pool as shards, a task a shard; what is there and would be the same is not written again.
    Returns `out`.

    Args:
        pool: a pool's directory (with pool.json), or its tars, which are indexed first.
        out: directory to write.
        home: directory of all runs, pools and tables, where the flow runs.
        subset: .npy of u8,u8 records, or Parquet with uid and count; otherwise every sample once.
        shard_size: most samples in a shard.
        seed: seed of the shuffle.
        workers: processes; otherwise one a core. No byte depends on it.
        max_lost: samples of the subset that may be missing: a whole number counts, a fraction is a share.
        overwrite: replace another export in `out`; anything else there is never touched.
        catalog: one whose task runner is used, a cluster's say, instead of processes of this machine.
    """
    lost = int(max_lost) if max_lost >= 1 or not max_lost else max_lost
    how = ReshardOptions(shard_size=shard_size, seed=seed, workers=workers, max_lost=lost, overwrite=overwrite)
    plan = indexing(pool, Path(home).resolve(), every=subset is None)
    directory = Path(pool) if plan is None else index_units(plan).directory
    done = write_shards(directory, subset, out, how, _as_tasks)
    say(f"{done.path}: {done.samples:,} samples in {done.shards:,} shards, {done.lost:,} lost")
    return str(done.path)
