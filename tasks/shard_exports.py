"""Shard exports: a manifest as WebDataset shards that DataComp's and open_clip's trainers take unchanged.

Those trainers draw whole shards with replacement, so a sample's weight is one over its shard's size, and
copies that lie close together meet in one batch as false negatives of each other. Hence: shards of equal size
(to one sample), filled by dealing a seeded global shuffle round robin, where the copies of a uid follow each
other and so fall into different shards as long as it has no more copies than there are shards; then each
shard is shuffled. Shuffles are sorts by a keyed hash of the uid, which no version of a library changes.

Beside the tars, numbered from 0 without gaps: `<n>_stats.json`, `sample_ids.npy` (the subset file), and
`meta.json`, written last. The directory appears whole, by one rename. Cost: one ranged read of a sample's
members a copy, one shard in memory at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artefacts import digest, publish_json, read_json, sync_directory
from tasks.exports import SubsetError, export_datacomp, foreign_uids
from tasks.manifests import Manifest, read_manifest
from tasks.samples import read_members
from tasks.shards import Sample, write_shard
from tasks.uids import uid_bytes, uid_hex

# Changes whenever equal inputs would give other bytes than before.
VERSION = 1
SHARD_FORMAT = "{:08d}.tar"
STATS_FORMAT = "{:08d}_stats.json"

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardExport:
    """What was exported: shards, samples in them, distinct uids, and copies that share a shard because there
    are too few."""

    path: Path
    shards: int
    samples: int
    distinct: int
    meeting: int


def export_webdataset(
    manifest: str | Path, pool: str | Path, out_dir: str | Path, shard_size: int = 10_000, seed: int = 0
) -> ShardExport:
    """Write a manifest's samples, copied from the pool in directory `pool`, as shards of at most
    `shard_size`.

    The same arguments give the same bytes; if `out_dir` holds just that already, nothing is done. Raises
    SubsetError when it holds anything else, or when the manifest is of another pool.
    """
    subset, out_dir = read_manifest(manifest), Path(out_dir)
    if shard_size < 1:
        raise SubsetError(f"shard_size {shard_size}: a shard holds at least one sample")
    shards = -(-subset.total // shard_size)
    meeting = int(np.maximum(subset.counts - shards, 0).sum())
    result = ShardExport(out_dir, shards, subset.total, len(subset.uids), meeting)
    order = {"version": VERSION, "manifest": subset.digest, "shard_size": shard_size, "seed": seed}
    if not _already_there(out_dir, order):
        samples = _samples_of(subset, Path(pool) / "samples.parquet")
        with _appearing(out_dir) as staging:
            for number, drawn in enumerate(deal(subset, shards, seed)):
                _write_shard(staging, number, samples, drawn, Path(pool))
            export_datacomp(manifest, staging / "sample_ids.npy")
            publish_json(staging / "meta.json", _meta(result, order))
    return result


def deal(subset: Manifest, shards: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    """For each shard its (position in the manifest, number of the copy), in the order of the shard."""
    keys = [_shuffle_key(seed, uid) for uid in uid_hex(subset.uids)]
    shuffled = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    counts = subset.counts[shuffled]
    copies = np.arange(subset.total) - np.repeat(np.cumsum(counts) - counts, counts)
    dealt = list(zip(np.repeat(shuffled, counts).tolist(), copies.tolist(), strict=True))
    for number in range(shards):
        yield sorted(dealt[number::shards], key=lambda card: _shuffle_key(seed, f"{keys[card[0]]}-{card[1]}"))


def _shuffle_key(seed: int, text: str) -> str:
    return blake2b(f"{seed}/{text}".encode(), digest_size=16).hexdigest()


def _samples_of(subset: Manifest, path: Path) -> pa.Table:
    """The pool's rows of the manifest's uids, in the manifest's order."""
    with pq.ParquetFile(path) as file:
        samples = file.read()
    uids = uid_bytes(samples["uid"])
    foreign = foreign_uids(subset.uids, uids)
    if foreign.any():
        raise SubsetError(
            f"{subset.path}: {int(foreign.sum()):,} of {len(foreign):,} uids are not in {path}, first "
            f"{uid_hex(subset.uids[foreign][:1])[0]}. Export with the pool that the run was made from"
        )
    return samples.take(pa.array(np.searchsorted(uids, subset.uids)))


def _write_shard(
    staging: Path, number: int, samples: pa.Table, drawn: list[tuple[int, int]], root: Path
) -> None:
    rows = samples.take(pa.array([position for position, _ in drawn], pa.int64()))
    uids, formats = uid_hex(rows["uid"]), rows["image_format"].to_pylist()
    parts = zip(uids, formats, drawn, read_members(rows, root), strict=True)
    write_shard(
        staging / SHARD_FORMAT.format(number),
        [
            Sample(
                f"{uid}-{copy}", members["image"], kind, members["text"], _with_uid(members.get("json"), uid)
            )
            for uid, kind, (_, copy), members in parts
        ],
    )
    publish_json(staging / STATS_FORMAT.format(number), {"successes": len(drawn)})


def _with_uid(record: bytes | None, uid: str) -> bytes | Mapping[str, Any]:
    """A json member that names the uid: the sample's own bytes when they do already."""
    known = json.loads(record) if record else {}
    return record if record and known.get("uid") == uid else {**known, "uid": uid}


def _meta(result: ShardExport, order: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "output_shard_count": result.shards,
        "output_shard_format": SHARD_FORMAT,
        "output_count": result.samples,
        "distinct": result.distinct,
        **order,
        "digest": digest(order),
    }


def _already_there(out_dir: Path, order: Mapping[str, Any]) -> bool:
    """True if `out_dir` holds this very export; raises SubsetError if it holds anything else."""
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return False
    meta = out_dir / "meta.json"
    if meta.is_file() and read_json(meta).get("digest") == digest(order):
        return True
    raise SubsetError(
        f"{out_dir}: not empty, and not this export. A trainer would read old tars along with new ones: "
        "name another directory, or remove this one"
    )


@contextmanager
def _appearing(out_dir: Path) -> Iterator[Path]:
    """A directory to fill that becomes `out_dir` when the block ends well. What a killed export left there
    goes first."""
    staging = out_dir.parent / f".{out_dir.name}.exporting"
    staging.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SubsetError(
                f"{out_dir}: another export is writing it just now; wait for it to end"
            ) from error
        for leftover in staging.iterdir():
            leftover.unlink()
        try:
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        os.rename(staging, out_dir)
        sync_directory(out_dir.parent)
    finally:
        os.close(descriptor)
