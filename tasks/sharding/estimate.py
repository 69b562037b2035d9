"""What sharding will take, told beforehand: a few pictures, evenly chosen, are made ready and measured."""

from __future__ import annotations

import errno
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.files.artefacts import DiskFull
from tasks.files.plurals import counted, sized
from tasks.pool.validation import Rejected
from tasks.sharding.options import ShardOptions
from tasks.sharding.pictures import made
from tasks.sharding.places import Place
from tasks.sharding.plans import ShardPlan
from tasks.sharding.reading import read

SHARDS, EACH = 4, 8
"""Shards of which some pictures are looked at, and how many of each."""
LONGEST = 3.0
"""Seconds that an estimate may take."""
MEMBERS = 3 * 1024
"""Bytes of headers, and of json and caption, that a sample takes in a tar beside its picture, about."""


@dataclass(frozen=True)
class Estimate:
    """For all that is left to do: bytes that are written, seconds of one core."""

    size: float
    seconds: float


def estimate(plan: ShardPlan, left: list[int], place: Place, options: ShardOptions) -> Estimate:
    """What the shards `left` of a plan take, about."""
    began, size, looked_at = time.perf_counter(), 0, 0
    for number in left[:: max(1, len(left) // SHARDS)][:SHARDS]:
        attempts = plan.shard(number)
        chosen = attempts[:: max(1, len(attempts) // EACH)][:EACH]
        for given in read(chosen, place.reader, options):
            looked_at += 1
            try:
                size += len(made(given.image, options).data) if given.image else 0
            except Rejected:
                continue
        if time.perf_counter() - began > LONGEST:
            break
    share = plan.attempts * len(left) / max(plan.shards, 1) / max(looked_at, 1)
    seconds = (time.perf_counter() - began) * share
    return Estimate(share * size + MEMBERS * share * looked_at, seconds)


def told(plan: ShardPlan, left: list[int], cost: Estimate, workers: int) -> str:
    """What is about to be done, a sentence."""
    done = f", {plan.shards - len(left):,} of them done" if len(left) < plan.shards else ""
    minutes = cost.seconds / 60 / workers
    took = f"{minutes:,.0f} minutes" if minutes >= 1.5 else f"{max(1, 60 * minutes):,.0f} s"
    return (
        f"{counted(plan.attempts, 'picture')}, {sized(plan.size)} to read, in {counted(plan.shards, 'shard')}{done}; "
        f"about {sized(cost.size)} and {took} with {workers} at a time"
    )


def check_room(place: Place, cost: Estimate, options: ShardOptions) -> None:
    """Raise DiskFull, before anything is written, where bytes that are kept as they are cannot fit."""
    if place.path is None or options.image_size is not None or options.encode_format is not None:
        return
    folder = Path(place.path)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if 0.8 * cost.size > free:
        raise DiskFull(
            errno.ENOSPC,
            f"the shards take about {sized(cost.size)}, and {sized(free)} are free in {folder}. Nothing was written. "
            "Free some space, name an --out elsewhere, or write smaller pictures (image_size)",
            str(folder),
        )
