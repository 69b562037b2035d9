"""The flow `shard`: pictures and captions in any usual form, as WebDataset shards; a task a shard.

Composition only: the plan says which attempts go into which shard, each shard's own stats say that it is done, so the
same command goes on after any interruption and ends with the same bytes, whatever runner carried the tasks.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from flows.runtime.in_flight import in_flight
from flows.runtime.locks import exclusive
from flows.runtime.operating import stage, unit
from tasks.files.artefacts import unit_name
from tasks.files.local_files import absolute
from tasks.files.processes import cores
from tasks.files.progress import say
from tasks.pool.record import Tolerance
from tasks.sharding import sharding, writing
from tasks.sharding.finishing import summary
from tasks.sharding.options import Evaluation, ShardOptions, read_options
from tasks.sharding.plans import ShardPlan, plan_shards


@unit("write-shard", "shard {job.number}")
def write_one(job: writing.ShardJob) -> dict[str, Any]:
    """Write one shard, with its table and stats."""
    return writing.write_shard(job)


def write_shards(
    plan: ShardPlan,
    out: str,
    home: Path,
    options: ShardOptions,
    may: Tolerance,
    workers: int,
    overwrite: bool = False,
    evaluation: Evaluation = "",
) -> dict[str, Any]:
    """Write what is not written of a plan, a task a shard; returns what `meta.json` says. One process at a time."""
    carry = partial(in_flight, write_one)
    lock = home / ".locks" / "shard" / unit_name(out)
    with exclusive(lock, on_wait=lambda _: say(f"{out}: waiting until another process has written it")):
        return sharding.write_shards(plan, out, home, options, may, carry, workers, overwrite, evaluation)


@stage("shard")
def shard(
    sources: list[str],
    out: str,
    home: str = "runs",
    shard_size: int = 1000,
    options: dict[str, Any] | None = None,
    max_rejects: float = 0.01,
    max_damaged_shards: int = 0,
    evaluation: Evaluation = "",
    overwrite: bool = False,
    runner: Literal["threads", "processes", "ray", "dask"] = "threads",
    workers: int | None = None,
) -> str:
    """Write pictures and captions as WebDataset shards, as img2dataset leaves them; what is there and would be the same
    is not written again. Returns `out`.

    Args:
        sources: directories of pictures, listings (CSV, TSV, JSON lines, Parquet), Parquet files with pictures inside,
            tars, img2dataset's outputs; local or fsspec URLs.
        out: directory or URL to write.
        home: directory of all runs, pools and tables, where the flow runs; the plan is kept there.
        shard_size: attempts of a shard.
        options: what is done with each picture, in img2dataset's words, say {"encode_format": "jpg"}.
        max_rejects: attempts that may fail: a whole number counts, a fraction is a share.
        max_damaged_shards: damaged tars among the sources that are read as far as they can be.
        evaluation: write an evaluation set in clip_benchmark's form instead: classification or retrieval.
        overwrite: bring shards of other sources or options in `out` up to date; anything else there is never touched.
        runner: what carries the tasks: threads, processes, or Ray or Dask on this machine.
        workers: tasks at a time; otherwise one a core. No byte depends on either.
    """
    how, base = read_options(options, evaluation), Path(home).resolve()
    lost = int(max_rejects) if max_rejects >= 1 or not max_rejects else max_rejects
    may = Tolerance(max_rejects=lost, max_damaged_shards=max_damaged_shards)
    out = absolute(out, Path.cwd())
    plan = plan_shards([absolute(one, Path.cwd()) for one in sources], base, how, shard_size, may.remote, evaluation)
    meta = write_shards(plan, out, base, how, may, workers or cores(), overwrite, evaluation)
    say(summary(out, meta))
    return out
