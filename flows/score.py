"""The flow `score`: a pool that nobody probed, scored by a distilled scorer; a task a shard.

Composition only: each shard's record says that it is scored, so the same command goes on after any interruption and
ends with the same bytes, whatever runner carried the tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flows.runtime.in_flight import in_flight
from flows.runtime.operating import stage, unit
from tasks.files.progress import announce, begin, say
from tasks.scoring import scored_pools


@unit("score-shard", "shard {shard}")
def score_shard(shard: str, plan: scored_pools.ScorePlan) -> None:
    """Score one shard."""
    scored_pools.score_shard(plan, shard)


@stage("score")
def score(
    scorer: str,
    pool: str,
    home: str = "runs",
    name: str | None = None,
    out: str | None = None,
    device: str = "cpu",
    runner: Literal["threads", "processes", "ray", "dask"] = "processes",
    workers: int | None = None,
) -> str:
    """Score a pool; shards that are scored are not scored again. Returns the table's path.

    Args:
        scorer: the file that `mgd distil` wrote.
        pool: directory of an indexed pool (with pool.json).
        home: directory of all runs, pools and tables, where the flow runs.
        name: what the scores are called in the home; otherwise as the scorer's file.
        out: a Parquet file to write instead.
        device: where the scorer's models look at the samples, say cuda:0.
        runner: what carries the tasks: threads, processes, or Ray or Dask on this machine.
        workers: tasks at a time; otherwise one a core. No byte depends on either.
    """
    place = None if out is None else Path(out).absolute()
    begin("look at what the scorer reads of the pool")
    plan = scored_pools.plan_scores(
        Path(scorer).absolute(), Path(home).resolve(), Path(pool).absolute(), name, place, device
    )
    pending = scored_pools.pending_shards(plan)
    for done, _ in enumerate(in_flight(score_shard, pending, plan), start=1):
        announce("score the pool", done, len(pending))
    scored_pools.finish_scores(plan)
    say(scored_pools.format_scores(plan))
    return str(plan.out)
