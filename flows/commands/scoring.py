"""`mgd distil` and `mgd score`: what a run learnt of its pool, for pools that nobody probes."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.commands import Make, flow_session, named, shipped, whole

DISTIL = """write what a run learnt of g as a scorer, for pools that were never probed

A ridge regression on what round 0's model sees of a pair and on the pool's numbers, fitted to all samples that the run
probed. How well it does on samples that it has not seen is told, beside how well anything could."""

SCORE = """score a pool that was never probed, shard by shard, by what `mgd distil` wrote

The scores are a table (uid, score; the highest are the best), in the home under a name or in a file of your own:
  mgd subset "score(name='fashion', fraction=0.3)" --pool POOL --out best.npy
Stopped or killed, the same command goes on where it was."""


def add_scoring(make: Make) -> None:
    """Add the parsers of both commands."""
    made = make("distil", _distil, DISTIL)
    made.add_argument("run_id", nargs="?", type=named, metavar="RUN", help="run (default: the latest)")
    made.add_argument("--out", type=Path, help="file to write (default: scorer.safetensors in the run's directory)")
    text = "all: what round 0's model sees, and the pool's numbers; cheap: those only (default: %(default)s)"
    made.add_argument("--features", choices=("all", "cheap"), default="all", help=text)
    made = make("score", _score, SCORE)
    made.add_argument("scorer", type=Path, help="the file that mgd distil wrote")
    text = f"a catalog (a TOML file, or {shipped()}), the directory of a pool (with pool.json), or tars"
    made.add_argument("pool", help=text)
    to = made.add_mutually_exclusive_group()
    to.add_argument("--save", metavar="NAME", help="what the scores are called (default: as the scorer's file)")
    to.add_argument("--out", type=Path, help="Parquet file to write instead")
    made.add_argument("--device", default="cpu", help="where the scorer's models look at samples (default: cpu)")
    text = "what carries the tasks (default: %(default)s); no byte depends on it"
    made.add_argument("--runner", choices=("threads", "processes", "ray", "dask"), default="processes", help=text)
    made.add_argument("--workers", type=whole, help="tasks at a time (default: one a core)")


def _distil(options: argparse.Namespace) -> int:
    from flows.console import shown_progress
    from tasks.curation.distilled import distil
    from tasks.runs.listing import readable_run

    home = options.home.resolve()
    directory = home / "runs" / readable_run(home, options.run_id)
    out = options.out or directory / "scorer.safetensors"
    with shown_progress():
        told = distil(directory, out, options.features == "cheap")
    print(f"{out}: {told}")
    return 0


def _score(options: argparse.Namespace) -> int:
    from flows.commands.pools import pool_of_catalog
    from flows.console import shown_progress
    from tasks.pool.naming import indexed
    from tasks.scoring.scored_pools import finish_scores, format_scores, pending_shards, plan_scores
    from tasks.scoring.scorers import read_scorer

    home, named_catalog = options.home.resolve(), options.pool in shipped().split(", ")
    with shown_progress():  # mistakes are told before a server is started, and what is done is found without one
        read_scorer(options.scorer)
        is_catalog = named_catalog or options.pool.endswith(".toml")
        pool = pool_of_catalog(options.pool, home) if is_catalog else indexed(options.pool, home)
        plan = plan_scores(options.scorer, home, pool, options.save, options.out, options.device)
        pending = pending_shards(plan)
    if pending:
        with flow_session(home):
            from flows.runtime.runners import run_flow
            from flows.score import score

            how = {name: getattr(options, name) for name in ("device", "runner", "workers")}
            out = None if options.out is None else str(options.out)
            run_flow(score, str(options.scorer), str(pool), str(home), name=options.save, out=out, **how)
    else:
        finish_scores(plan)
    print(format_scores(plan))
    return 0
