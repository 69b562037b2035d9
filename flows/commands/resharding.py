"""`mgd reshard`: a subset of a pool as shards for DataComp's and open_clip's trainers."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.commands import Make, budget, count, whole

TEXT = """write a subset of a pool as WebDataset shards

The samples' bytes are copied by range from the pool's tars: equal shards, globally shuffled, copies of a sample apart,
the same bytes for the same input. Stopped or killed, the same command goes on where it was. Exits with 1 when more of
the subset is missing than --max-lost allows; lost.parquet says which samples and why."""


def add_reshard(make: Make) -> None:
    """Add the command's parser."""
    made = make("reshard", _run, TEXT)
    made.add_argument("pool", help="a pool's directory (with pool.json), or its tars, which are indexed first")
    text = ".npy of u8,u8 records, or Parquet with uid and count (default: every sample once)"
    made.add_argument("--subset", type=Path, help=text)
    made.add_argument("--out", type=Path, required=True, help="directory to write")
    made.add_argument("--shard-size", type=whole, default=10_000, help="most samples in a shard (default: %(default)s)")
    made.add_argument("--seed", type=count, default=0, help="seed of the shuffle (default: %(default)s)")
    made.add_argument("--workers", type=whole, help="processes (default: one a core); no byte depends on it")
    text = "samples of the subset that may be missing: a number, or a share like 0.1 (default: %(default)s)"
    made.add_argument("--max-lost", type=budget, default=0, help=text)
    text = "without --subset: samples of the pool that may be unusable, a number or a share (default: %(default)s)"
    made.add_argument("--max-rejects", type=budget, default=0.01, help=text)
    text = "without --subset: tars that may be damaged; they are gone through as far as they can be read (default: 0)"
    made.add_argument("--max-damaged-shards", type=count, default=0, help=text)
    text = "replace what another export left in --out; anything else there is never touched"
    made.add_argument("--overwrite", action="store_true", help=text)


def _run(options: argparse.Namespace) -> int:
    from flows.console import shown_progress
    from tasks.export.reshard import ReshardOptions, reshard
    from tasks.pool.naming import indexed
    from tasks.pool.record import BuildOptions, load_pool

    names = ("shard_size", "seed", "workers", "max_lost", "overwrite")
    how = ReshardOptions(**{name: getattr(options, name) for name in names})
    with shown_progress():
        may = BuildOptions(max_rejects=options.max_rejects, max_damaged_shards=options.max_damaged_shards)
        pool = indexed(options.pool, options.home, options.workers, options.subset is None, may)
        done = reshard(pool, options.subset, options.out, how)
    shards = f"{done.shards:,} shard{'s' * (done.shards != 1)}"
    print(
        f"{done.path}: {done.samples:,} samples ({done.distinct:,} distinct) in {shards}, "
        f"{done.size / 1e6:,.1f} MB, {done.lost:,} lost" + (", see lost.parquet there" if done.lost else "")
    )
    record = load_pool(pool)
    if record is not None and record.rejects:
        told = ", ".join(f"{count:,} {reason}" for reason, count in record.reasons.items())
        print(f"not in the pool, and so in no shard: {told}; see {record.rejects_path}")
    if done.meeting:
        print(f"{done.meeting:,} copies share a shard with another of the same sample: more shards would part them")
    return 0
