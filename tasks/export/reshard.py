"""Resharding: a subset of a pool as WebDataset shards that DataComp's and open_clip's trainers take unchanged.

Shards are numbered from 0 without gaps, of equal size to one sample, globally shuffled, with copies of a uid apart
(`shard_assignment`). Beside them: `<n>_stats.json`, `sample_ids.npy` (the subset), `lost.parquet` where samples are
missing, and `meta.json`, written last. The same subset, pool, shard size and seed give the same bytes, whatever the
number of workers.

Everything is made in `.<out>.reshard` beside the output: `plan/`, `shards/`, and `done/` with a record of every shard
that is finished. Killed or stopped, the same command writes the shards without a record, and again those that lost
samples; then the directory appears whole, by one rename.

A sample of the subset that does not come along is lost: the pool never had it (a dead link), rejected it, or its tar
changed since. More than `max_lost` of them is an error, before any tar is opened where that can be known.

Cost: `reshard_plans`, then about 30 µs a sample on one core, and the bytes once; no image is decoded.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.export.lost_samples import LostSamples, allowance, check_lost, copies_lost, lost_table, write_lost
from tasks.export.reshard_plans import ExportPlan, make_plan, open_plan, plan_key, planned_key
from tasks.export.shard_copies import SHARD_FORMAT, Copied, copy_shard
from tasks.files.artefacts import DiskFull, publish_json, publishing, read_json, reading
from tasks.files.export_directories import ExportError, finished, put_in_place, refuse_stale, working
from tasks.files.export_files import check_place
from tasks.files.option_types import Strict
from tasks.files.processes import cores, mapped
from tasks.files.progress import announce
from tasks.files.tar_headers import archive_size
from tasks.homes.working_copies import at_hand, removed
from tasks.pool.forms import PairForm
from tasks.pool.record import Budget, PoolRecord, load_pool
from tasks.subset.files import Subset, SubsetError, everything, read_subset, write_records


class ReshardOptions(Strict):
    """How a subset is written as shards."""

    shard_size: int = Field(default=10_000, ge=1, description="most samples in a shard")
    seed: int = Field(default=0, description="seed of the shuffle")
    max_lost: Budget = Field(
        default=0,
        description="most samples that may be missing: a whole number counts, a fraction is a share of the subset",
    )
    workers: int | None = Field(default=None, ge=1, description="processes; None: one a core. No byte depends on it")
    overwrite: bool = Field(default=False, description="replace another export, or drop an unfinished one")


@dataclass(frozen=True)
class Resharded:
    """An export: its shards, the samples in them, distinct uids, copies that share a shard because there are too few
    shards, samples of the subset that are missing, and bytes of all tars."""

    path: Path
    shards: int
    samples: int
    distinct: int
    meeting: int
    lost: int
    size: int


Spread = Callable[[Callable[[int], Copied], Sequence[int]], Generator[Copied, None, None]]
"""How shards are written side by side: by a function of a shard's number, for these numbers."""


def reshard(
    pool: str | Path,
    subset: str | Path | None,
    out_dir: str | Path,
    options: ReshardOptions | None = None,
    spread: Spread | None = None,
) -> Resharded:
    """Write the samples of a subset file (None: every sample once) of the pool in directory `pool` as shards, by
    processes of this machine unless they are `spread` otherwise.

    If `out_dir` holds just that already, nothing is done. Raises ExportError when it holds anything else, LostSamples
    when more than the budget is missing, DiskFull when there is no room: finished shards are kept for the next try.
    """
    options, out = options or ReshardOptions(), Path(out_dir).absolute()
    source = _finished_pool(Path(pool))
    at_hand(source.directory, out)
    check_place(out)
    wanted = everything(source.samples_path) if subset is None else read_subset(subset)
    key = plan_key(wanted, source, options.shard_size, options.seed)
    with working(out) as work:
        meta = finished(out, key, SHARD_FORMAT, options.overwrite)
        if meta is None:
            refuse_stale(out, options.overwrite)
            _refuse_other_work(work, key, out, options.overwrite)
            plan = make_plan(work / "plan", wanted, source, options.shard_size, options.seed)
            copied = _write_shards(work, plan, source, wanted.total, options, spread)
            meta = _finish(work, wanted, plan, copied, options)
            removed(out)
            put_in_place(work / "shards", out)
    allowed_since = allowance(options.max_lost, wanted.total)
    if meta["lost"] > allowed_since:
        raise LostSamples(
            f"{out}: complete but for {meta['lost']:,} samples, and {allowed_since:,} may be missing "
            f"(max_lost {options.max_lost:g}); {out / 'lost.parquet'} says which and why"
        )
    shards, samples, size = (meta[f"output_{name}"] for name in ("shard_count", "count", "bytes"))
    return Resharded(Path(out_dir), shards, samples, meta["distinct"], meta["meeting"], meta["lost"], size)


def _write_shards(
    work: Path, plan: ExportPlan, source: PoolRecord, total: int, options: ReshardOptions, spread: Spread | None
) -> list[Copied]:
    """Write the shards that are not done; all of them as they are then. Raises LostSamples, DiskFull."""
    lost = partial(lost_table, plan.lost)
    check_lost(lost([]), total, options.max_lost, work / "lost.parquet")
    if not plan.total:
        raise SubsetError(f"nothing of the subset is in the pool {source.directory}: it belongs to another pool")
    for name in ("shards", "done"):
        (work / name).mkdir(exist_ok=True)
    copied = {one.number: one for one in _done(work)}
    pending = [number for number in range(plan.shards) if number not in copied]
    _check_room(work, plan, sum(one.size for one in copied.values()))
    write = partial(_write_shard, work, plan.key, source.directory)
    announce("resharding", len(copied), plan.shards)
    try:
        spread = spread or partial(mapped, workers=options.workers or cores())
        with closing(spread(write, pending)) as results:
            for one in results:
                copied[one.number] = one
                announce("resharding", len(copied), plan.shards)
                if one.lost:
                    rows = [row for other in copied.values() for row in other.lost]
                    check_lost(lost(rows), total, options.max_lost, work / "lost.parquet")
    finally:
        for leftover in (work / "shards").glob(".*.tmp"):  # of workers that had to go at once
            leftover.unlink(missing_ok=True)
    return list(copied.values())


def _write_shard(work: Path, key: str, root: Path, number: int) -> Copied:
    """Write one shard and note that it is done, in any process."""
    copied = copy_shard(open_plan(work / "plan", key), number, root, work / "shards")
    publish_json(work / "done" / f"{number:08d}.json", asdict(copied))
    return copied


def _done(work: Path) -> list[Copied]:
    """The shards that need not be written again: noted, there, and without a loss."""
    found = []
    for path in sorted((work / "done").glob("*.json")):
        with reading(path):
            found.append(Copied(**read_json(path)))
    tars = [work / "shards" / SHARD_FORMAT.format(one.number) for one in found]
    return [
        one
        for one, tar in zip(found, tars, strict=True)
        if not one.lost and tar.exists() and tar.stat().st_size == one.size
    ]


def _finish(
    work: Path, wanted: Subset, plan: ExportPlan, copied: list[Copied], options: ReshardOptions
) -> dict[str, Any]:
    """Write what lies beside the shards, `meta.json` last."""
    shards = work / "shards"
    rows = [row for one in copied for row in one.lost]
    lost = lost_table(plan.lost, rows)
    write_lost(lost, shards / "lost.parquet")
    with publishing(shards / "sample_ids.npy") as file:
        write_records(file, wanted.uids, wanted.counts)
    meta = {
        "output_shard_count": plan.shards,
        "output_shard_format": SHARD_FORMAT,
        "output_count": sum(one.samples for one in copied),
        "output_bytes": sum(one.size for one in copied),
        "distinct": plan.distinct - len({row["uid"] for row in rows}),
        "meeting": plan.meeting,
        "lost": copies_lost(lost),
        "shard_size": options.shard_size,
        "seed": options.seed,
        "subset": wanted.digest,
        "digest": plan.key,
    }
    publish_json(shards / "meta.json", meta)
    return meta


def _finished_pool(directory: Path) -> PoolRecord:
    record = load_pool(directory)
    if record is None:
        raise ExportError(
            f"{directory}: no finished pool (it has no pool.json); name the directory of one, or its tars"
        )
    if record.samples_kind != PairForm.kind:
        raise ExportError(
            f"{directory}: pool {record.pool_id} is of {record.samples_kind}, and shards are made of pictures "
            "and captions. The samples of a run's subset are written by `mgd export --format jsonl`"
        )
    return record


def _refuse_other_work(work: Path, key: str, out: Path, overwrite: bool) -> None:
    """Drop what an unfinished export of other inputs left; unasked only if it had not finished a shard."""
    planned = planned_key(work / "plan")
    if planned == key:
        return
    done = len(list((work / "done").glob("*.json")))
    if done and not overwrite:
        raise ExportError(
            f"{out}: an unfinished export of another subset, pool, shard size or seed lies in {work}, {done:,} shards "
            "of it are done. Give the command that began it to finish it, or drop it with --overwrite"
        )
    for name in ("plan", "shards", "done"):
        shutil.rmtree(work / name, ignore_errors=True)


def _check_room(work: Path, plan: ExportPlan, done: int) -> None:
    """Raise DiskFull before anything is written if it cannot fit."""
    needed = plan.size + plan.shards * archive_size(0) - done
    free = shutil.disk_usage(work).free
    if needed > free:
        raise DiskFull(
            errno.ENOSPC,
            f"{plan.total:,} samples take {needed:,} bytes more, and {free:,} are free in {work.parent}. Nothing was "
            "written. Free some space, or name an --out elsewhere, and give the same command again: finished shards "
            "are kept",
            str(work.parent),
        )
