"""Writing one shard: its attempts read, checked, made ready and written, with the record of each beside it.

    00000012.tar           key.jpg|png|webp, key.json, key.txt of each sample; key: the shard's eight digits, then four
    00000012.parquet       a row an attempt, failures with status and error_message as img2dataset has them
    00000012_stats.json    its counters, the key of the work, the tar's size; written last: the shard is done

The bytes are those of the attempts and the options, and of nothing else: no times, no owner, no names of this machine.
Memory: one sample, and the rows of the table.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.files.artefacts import canonical_json
from tasks.files.option_types import Strict
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteOptions
from tasks.pool.shards import Members, write_members
from tasks.pool.validation import Rejected, printable, text_of, uid_of
from tasks.sharding.attempts import FAILED, UNFIT, Given
from tasks.sharding.options import Evaluation, ShardOptions
from tasks.sharding.pictures import made
from tasks.sharding.places import Place
from tasks.sharding.plans import planned_attempts
from tasks.sharding.reading import read
from tasks.tables.published import write_parquet
from tasks.tables.uids import content_uid

SUCCESS = "success"
TABLE = pa.schema(
    [(name, pa.string()) for name in ("uid", "caption", "key", "status", "error_message")]
    + [(name, pa.int32()) for name in ("width", "height", "original_width", "original_height")]
    + [(name, pa.string()) for name in ("exif", "sha256", "source", "columns")]
)
"""A shard's table: img2dataset's columns, `sha256` that of the bytes that were given; where the attempt came from
(`source`), and what else was known of it (`columns`, a JSON object)."""
EARLIER = ("original_width", "original_height", "exif", "sha256")
"""What a download noted of the picture that was on the web stays as it is."""
OURS = ("uid", "caption", "key", "status", "error_message", "width", "height", *EARLIER)
SHOWN = 3
"""Failures that a shard's stats show."""


class ShardJob(Strict):
    """One shard of a plan, to be written into a place."""

    plan: Path
    number: int
    key: str
    """Digest of all that its bytes are a function of."""
    digits: int
    """Of a sample's number in it."""
    classes: tuple[str, ...] = ()
    out: str
    options: ShardOptions
    remote: RemoteOptions = RemoteOptions()
    evaluation: Evaluation = ""

    @property
    def tar(self) -> str:
        """Name of its tar."""
        return f"{self.number}.tar" if self.evaluation else f"{self.number:08d}.tar"


def write_shard(job: ShardJob) -> dict[str, Any]:
    """Write a shard unless it is done; returns its stats."""
    place = Place(job.out, Reader(job.remote))
    return shard_stats(place, job.number, job.key, job.tar) or _written(job, place)


def shard_stats(
    place: Place, number: int, key: str, tar: str, files: Mapping[str, int] | None = None
) -> dict[str, Any] | None:
    """The stats of a shard that is done, for these very inputs; None: it is not, or somebody changed it since.
    `files`: what is in the place, where that was just listed."""
    name = f"{number:08d}_stats.json"
    if files is not None and name not in files:
        return None
    try:
        stats = json.loads(place.read(name) or b"{}")
        files = place.files() if files is None else files
        there = stats["key"] == key and files.get(tar) == stats["bytes"] and f"{number:08d}.parquet" in files
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(stats) if there else None


def _written(job: ShardJob, place: Place) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    given = read(planned_attempts(job.plan, job.number), place.reader, job.options)
    with place.publishing(job.tar) as file:
        write_members(file, _samples(job, given, rows))
        size = file.tell()
    columns = [pa.array([row.get(one.name) for row in rows], one.type) for one in TABLE]
    with place.publishing(f"{job.number:08d}.parquet") as file:
        write_parquet(file, pa.table(columns, schema=TABLE))
    status = Counter(row["status"] for row in rows)
    failures = [row for row in rows if row["status"] != SUCCESS]
    known = [row for row in failures if row["known"]]
    stats = {
        "shard": job.number,
        "count": len(rows),
        "successes": status[SUCCESS],
        FAILED: sum(status.values()) - status[SUCCESS] - status[UNFIT],
        UNFIT: status[UNFIT],
        "status_dict": Counter((row.get("error_message") or SUCCESS).partition(": ")[0] for row in rows),
        "known": len(known),
        "first": [f"{row['source']}: {row['error_message']}" for row in failures if row not in known][:SHOWN],
        "bytes": size,
        "key": job.key,
    }
    place.publish(f"{job.number:08d}_stats.json", json.dumps(stats, sort_keys=True, indent=4).encode())
    return stats


def _samples(job: ShardJob, given: Iterator[Given], rows: list[dict[str, Any]]) -> Iterator[tuple[str, Members]]:
    """Keys and members of the samples; a row of each attempt is added to `rows`."""
    for i, one in enumerate(given):
        row: dict[str, Any] = {"key": f"{job.number:08d}{i:0{job.digits}d}", "source": printable(one.attempt.name)}
        row |= {"known": bool(one.error) and one.from_source}
        try:
            members = _sample(job, one, row)
        except Rejected as rejected:
            told = printable(f"{rejected.reason}: {rejected.detail}".removesuffix(": "))
            row |= {"status": one.status if one.image is None else UNFIT, "error_message": told}
            members = []
        rows.append(row)
        if members:
            yield row["key"], members


def _sample(job: ShardJob, given: Given, row: dict[str, Any]) -> Members:
    """A sample's members, and what is to be told of it in its row of the table; raises Rejected."""
    others = {name: value for name, value in given.record.items() if name not in OURS}
    row["columns"] = canonical_json(others).decode() if others else None
    if given.uid is not None:
        row["uid"] = uid_of(given.uid.hex() if isinstance(given.uid, bytes) else given.uid)
    if given.caption is not None:
        octets = given.caption if isinstance(given.caption, bytes) else given.caption.encode("utf-8", "surrogateescape")
        row["caption"] = octets.decode("utf-8", "replace")
    if given.error or given.image is None:
        raise Rejected(*(given.error or "missing_image").split(": ", 1))
    row["sha256"] = sha256(given.image).hexdigest()
    if given.caption is None:
        raise Rejected("missing_text")
    caption = text_of(octets)
    picture = made(given.image, job.options)
    earlier = {name: given.record[name] for name in EARLIER if given.record.get(name) is not None}
    row |= {
        "uid": row.get("uid") or content_uid(given.image, octets),
        "caption": caption,
        "status": SUCCESS,
        "error_message": None,
        "width": picture.size[0],
        "height": picture.size[1],
        "original_width": picture.original_size[0],
        "original_height": picture.original_size[1],
        "exif": picture.exif,
    }
    if job.evaluation == "classification":
        return [(picture.format, picture.data), ("cls", str(job.classes.index(caption)).encode())]
    record = others | {name: row[name] for name in OURS} | earlier
    written = [("json", canonical_json(record)), ("txt", octets)]
    return [(picture.format, picture.data), *(written if not job.evaluation else written[1:])]
