"""All of a sharding, whoever carries its tasks: what is left of a plan is estimated, written, checked and finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tasks.files.progress import announce, begin, say
from tasks.files.remote_files import Reader
from tasks.pool.record import Tolerance
from tasks.sharding import finishing
from tasks.sharding.estimate import check_room, estimate, told
from tasks.sharding.evaluation_sets import write_set_files
from tasks.sharding.options import Evaluation, ShardOptions
from tasks.sharding.places import Place
from tasks.sharding.plans import ShardPlan
from tasks.sharding.writing import ShardJob

Carry = Callable[[list[ShardJob]], Iterable[dict[str, Any]]]
"""Runs `write_shard` on every job, anywhere, in any order; gives their stats as they get done."""


def write_shards(
    plan: ShardPlan,
    out: str,
    home: Path,
    options: ShardOptions,
    may: Tolerance,
    carry: Carry,
    workers: int = 1,
    overwrite: bool = False,
    evaluation: Evaluation = "",
) -> dict[str, Any]:
    """Write what is not written of a plan; returns what `meta.json` says. `workers`: for the estimate.

    Raises ShardingError for damaged sources, ExportError where `out` holds something else, TooManyFailures, DiskFull.
    """
    finishing.check_damage(plan, may.max_damaged_shards)
    place = Place(out, Reader(may.remote)).below("test" if evaluation else "")
    finishing.begin_shards(place, plan, overwrite)
    stats = finishing.done_shards(place, plan, evaluation)
    left = [number for number in range(plan.shards) if number not in stats]
    if left:
        begin("look at some pictures")
        cost = estimate(plan, left, place, options)
        say(told(plan, left, cost, workers))
        check_room(place, cost, options)
    said: dict[str, Any] = {"plan": plan.directory, "out": place.url, "options": options, "remote": may.remote}
    said |= {"digits": plan.digits, "classes": plan.classes, "evaluation": evaluation}
    allowed = finishing.allowed_failures(plan, may.max_rejects)
    bad = sum(map(finishing.failures, stats.values()))
    announce("write shards", len(stats), plan.shards)
    jobs = [ShardJob(number=number, key=plan.keys[number], **said) for number in left]
    for one in carry(jobs if bad <= allowed else []):
        stats[one["shard"]] = one
        bad += finishing.failures(one)
        if bad > allowed:
            break
        announce("write shards", len(stats), plan.shards)
    if bad > allowed:
        raise finishing.TooManyFailures(finishing.told_failures(stats.values(), plan, out, may.max_rejects))
    if evaluation:
        write_set_files(Place(out, place.reader), evaluation, plan.classes)
    return finishing.finished_meta(place, plan) or finishing.finish_shards(place, plan, stats, home, evaluation)
