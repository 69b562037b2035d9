"""Beginning and finishing a folder of shards: whose it is, whether too much failed, what is double, and its record.

`sharding.json` comes first and says which plan the folder is made by, so that nothing of anybody else's is written
over; `meta.json` comes last: the folder is complete. Between them a shard is done when its stats are there.
`sizes.json` says how many samples each tar has, as open_clip reads it, and `duplicates.parquet` which samples show the
same picture, or are the same pair, as an earlier one: they stay in the shards, and a pool keeps the first of a uid.

Cost: one pass over the shards' tables; DuckDB finds what is double, with files in the way of memory.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from tasks.files.export_directories import ExportError
from tasks.files.plurals import counted
from tasks.files.progress import begin
from tasks.files.scratch import scratch
from tasks.files.untrusted_parquet import parquet_batches
from tasks.pool.record import Budget
from tasks.sharding.attempts import FAILED, UNFIT, ShardingError
from tasks.sharding.options import Evaluation
from tasks.sharding.places import Place
from tasks.sharding.plans import ShardPlan
from tasks.sharding.writing import shard_stats
from tasks.tables.sql_names import SETTINGS, literal

CLAIM, META = "sharding.json", "meta.json"
OURS = re.compile(
    r"\d{8}\.tar|\d{8}_stats\.json|\d{8}\.parquet|duplicates\.parquet|sizes\.json|meta\.json|sharding\.json"
)
SHARD = re.compile(r"(\d+)(?:\.tar|_stats\.json|\.parquet)")
MEMORY = "1GiB"
DOUBLE = """CREATE TABLE double AS SELECT key, uid, first_key, alike FROM (
    SELECT key, uid, sha256, caption, first(key) OVER same AS first_key, 'picture' AS alike, row_number() OVER same AS n
    FROM samples WINDOW same AS (PARTITION BY sha256 ORDER BY key)
    UNION ALL BY NAME
    SELECT key, uid, sha256, caption, first(key) OVER same AS first_key, 'pair' AS alike, row_number() OVER same AS n
    FROM samples WINDOW same AS (PARTITION BY sha256, caption ORDER BY key)
    UNION ALL BY NAME
    SELECT key, uid, sha256, caption, first(key) OVER same AS first_key, 'uid' AS alike, row_number() OVER same AS n
    FROM samples WINDOW same AS (PARTITION BY uid ORDER BY key)
) WHERE n > 1 ORDER BY key, alike"""


class TooManyFailures(UserError, ValueError):
    """More attempts failed than the budget allows."""


def begin_shards(place: Place, plan: ShardPlan, overwrite: bool) -> None:
    """Claim the place for the plan; raises ExportError where it holds something else."""
    files = place.files()
    claim = place.record(CLAIM) if CLAIM in files else {}
    if claim.get("key") == plan.key:
        return
    foreign = sorted(name for name in files if not (OURS.fullmatch(name) or SHARD.fullmatch(name)))
    if files and (not claim or foreign):
        raise ExportError(
            f"{place.url}: not empty, and not made by mgd shard ({(foreign or sorted(files))[0]}, ...): a trainer "
            "would read its tars along with new ones. Name another directory"
        )
    if claim and not overwrite:
        raise ExportError(
            f"{place.url}: holds shards of other sources or options, {claim.get('shards')} of them. Name another "
            "directory, or bring these up to date with --overwrite: shards whose pictures and options are as they were "
            "stay"
        )
    for name in ("meta.json", "sizes.json", "duplicates.parquet"):
        if name in files:
            place.remove(name)
    place.publish(CLAIM, _json({"key": plan.key, "shards": plan.shards, "attempts": plan.attempts}))


def done_shards(place: Place, plan: ShardPlan, evaluation: Evaluation = "") -> dict[int, dict[str, Any]]:
    """The stats of the shards that need not be written again, by number."""
    files = place.files()
    found = {
        number: shard_stats(place, number, key, f"{number}.tar" if evaluation else f"{number:08d}.tar", files)
        for number, key in enumerate(plan.keys)
    }
    return {number: stats for number, stats in found.items() if stats is not None}


def finished_meta(place: Place, plan: ShardPlan) -> dict[str, Any] | None:
    """What the place says of itself if it is complete and of this plan, and all its tars are there."""
    meta = place.record(META)
    if meta.get("digest") != plan.key:
        return None
    sizes = {name: size for name, size in place.files().items() if name.endswith(".tar")}
    return meta if len(sizes) == plan.shards and sum(sizes.values()) == meta.get("output_bytes") else None


def failures(stats: Mapping[str, Any]) -> int:
    """Attempts of a shard that failed, but for those that the source itself had noted as failed."""
    return int(stats[FAILED] + stats[UNFIT] - stats["known"])


def allowed_failures(plan: ShardPlan, max_rejects: Budget) -> int:
    """How many of a plan's attempts may fail; what stands for damaged files has a budget of its own."""
    return plan.damaged + (max_rejects if isinstance(max_rejects, int) else int(max_rejects * plan.attempts))


def told_failures(stats: Iterable[Mapping[str, Any]], plan: ShardPlan, out: str, max_rejects: Budget) -> str:
    """What is told where more attempts failed than a budget allows."""
    listed = list(stats)
    kinds = sum((Counter(one["status_dict"]) for one in listed), Counter[str]())
    told = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common() if kind != "success")
    first = "; ".join(line for one in listed for line in one["first"])[:600]
    bad, allowed = sum(map(failures, listed)) - plan.damaged, allowed_failures(plan, max_rejects) - plan.damaged
    return (
        f"{out}: {bad:,} of {plan.attempts:,} failed, {allowed:,} allowed (max_rejects {max_rejects}): {told}. First: "
        f"{first}. The shards' tables (*.parquet) have all. Mend the sources, or raise max_rejects to go on without "
        "them"
    )


def check_damage(plan: ShardPlan, max_damaged_shards: int) -> None:
    """Raise ShardingError, before anything is written, where more files are damaged than may be."""
    if plan.damaged > max_damaged_shards:
        raise ShardingError(
            f"{plan.damaged:,} of the sources' tars are damaged, max_damaged_shards is {max_damaged_shards}. First: "
            f"{plan.first_damage}. Fetch them again, or raise max_damaged_shards to go on with what comes before the "
            "damage"
        )
    if not plan.attempts:
        raise ShardingError("no pictures in the sources. Check that these are the right places")


def finish_shards(
    place: Place, plan: ShardPlan, stats: Mapping[int, Mapping[str, Any]], home: Path, evaluation: Evaluation = ""
) -> dict[str, Any]:
    """Write what lies beside the shards, `meta.json` last; returns it."""
    begin("look for duplicates")
    listed = [stats[number] for number in range(plan.shards)]
    names = [f"{number}.tar" if evaluation else f"{number:08d}.tar" for number in range(plan.shards)]
    for name in place.files():
        number = SHARD.fullmatch(name)
        if number and int(number[1]) >= plan.shards:  # of an earlier plan with more of them
            place.remove(name)
    doubles = _write_duplicates(place, plan, home)
    place.publish("sizes.json", _json({name: one["successes"] for name, one in zip(names, listed, strict=True)}))
    if evaluation:
        place.publish("nshards.txt", f"{plan.shards}\n".encode())
    meta = {
        "output_shard_count": plan.shards,
        "output_shard_format": "{:d}.tar" if evaluation else "{:08d}.tar",
        "output_count": sum(one["successes"] for one in listed),
        "output_bytes": sum(one["bytes"] for one in listed),
        "attempts": plan.attempts,
        "failures": dict(sum((Counter(one["status_dict"]) for one in listed), Counter())),
        "known_failures": sum(one["known"] for one in listed),
        "duplicates": doubles,
        "digest": plan.key,
    }
    meta["failures"].pop("success", None)
    place.publish(META, _json(meta))
    return meta


def summary(out: str, meta: dict[str, Any]) -> str:
    """What was written, a sentence or three."""
    failed = ", ".join(f"{n:,} {kind}" for kind, n in sorted(meta["failures"].items(), key=lambda one: -one[1]))
    double = ", ".join(f"{n:,} of the same {kind}" for kind, n in meta["duplicates"].items())
    lines = [f"{out}: {counted(meta['output_count'], 'sample')} in {counted(meta['output_shard_count'], 'shard')}"]
    lines += [f"failed: {failed}; the shards' tables (*.parquet) say which and why"] if failed else []
    lines += [f"like an earlier one: {double}; duplicates.parquet says which"] if double else []
    return "\n".join(lines)


def _write_duplicates(place: Place, plan: ShardPlan, home: Path) -> dict[str, int]:
    """Write which samples are like earlier ones; how many there are of each kind."""
    with scratch(home, "duplicates") as work, duckdb.connect(":memory:", config=SETTINGS) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'; SET temp_directory = {literal(work / 'spill')}")
        connection.execute("CREATE TABLE samples (key VARCHAR, uid VARCHAR, sha256 VARCHAR, caption VARCHAR)")
        for number in range(plan.shards):
            url = place.address(f"{number:08d}.parquet")
            for batch in parquet_batches(url, place.reader, ["key", "uid", "sha256", "caption", "status"]):
                connection.register("batch", batch)
                connection.execute(
                    "INSERT INTO samples SELECT key, uid, sha256, md5(caption) FROM batch WHERE status = 'success'"
                )
                connection.unregister("batch")
        connection.execute(DOUBLE)
        found: Any = connection.sql("SELECT * FROM double").to_arrow_reader()
        with (
            place.publishing("duplicates.parquet") as file,
            pq.ParquetWriter(file, found.schema, compression="zstd") as to,
        ):
            for batch in found:
                to.write_batch(batch)
        return dict(connection.execute("SELECT alike, count(*) FROM double GROUP BY alike ORDER BY alike").fetchall())


def _json(record: object) -> bytes:
    return json.dumps(record, sort_keys=True, indent=2).encode() + b"\n"
