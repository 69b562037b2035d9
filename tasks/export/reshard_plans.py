"""Reshard plans: everything that writing the shards of an export needs, worked out before any tar is opened.

A plan is a directory of its own: `rows.npy` (where the members of every wanted sample lie), `cards.npy` (what goes
where, see `shard_assignment`), `lost.parquet`, and `plan.json`, written last. It is a function of the subset, the pool,
the shard size and the seed, so a killed reshard finds it again. Workers map the arrays and read what their shard needs.

Samples that the pool has not are known here, before any tar is opened: a row of `lost.parquet` each, with the reason
for which the pool rejected them, if it saw them at all.

Cost: one pass over nine columns of the pool's samples table, about 70 bytes of disk a sample and 12 a copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.export.dead_links import Why, dead_links
from tasks.export.lost_samples import LOST
from tasks.export.shard_assignment import Cards, bounds, deal, shards_needed
from tasks.files.artefacts import digest, publish_json, publishing, read_json
from tasks.files.tar_headers import BLOCK, padded
from tasks.pool.record import PoolRecord
from tasks.pool.samples import MEMBERS
from tasks.subset.files import Subset
from tasks.tables.published import write_parquet
from tasks.tables.uids import Bytes16, uid_array, uid_bytes

# Changes whenever equal inputs would give other bytes than before.
VERSION = 2
FORMATS = ("jpg", "png", "webp")
RANGES = tuple(f"{member}_{part}" for member in MEMBERS for part in ("offset", "size"))
ROW = np.dtype([("uid", "u1", (16,)), ("source", "<i4"), ("format", "u1"), *((name, "<i8") for name in RANGES)])
"""A sample of the pool: `source` numbers the plan's sources; offset and size of a missing json are -1."""
BATCH = 1 << 16
Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class ExportPlan:
    """An export that was worked out.

    `total` copies of `distinct` samples; `meeting` copies share a shard because there are too few; `size`: bytes of all
    members and their headers; `sources`: the `shard` values of the samples table.
    """

    directory: Path
    key: str
    shards: int
    total: int
    distinct: int
    meeting: int
    size: int
    sources: Sequence[str]
    rows: Rows
    cards: Cards

    @property
    def lost(self) -> pa.Table:
        """The samples that the pool has not, of schema LOST."""
        with pq.ParquetFile(self.directory / "lost.parquet") as file:
            return file.read()

    def hand(self, number: int) -> Cards:
        """The cards of one shard."""
        start, stop = bounds(self.total, self.shards, number)
        return self.cards[start:stop]


def plan_key(subset: Subset, pool: PoolRecord, shard_size: int, seed: int) -> str:
    """Digest of all that decides an export's bytes."""
    return digest([VERSION, subset.digest, pool.samples_digest, shard_size, seed])


def make_plan(directory: Path, subset: Subset, pool: PoolRecord, shard_size: int, seed: int) -> ExportPlan:
    """Work the plan out in an own `directory`, in place of what is there, or find it there."""
    key = plan_key(subset, pool, shard_size, seed)
    if planned_key(directory) != key:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _write_plan(directory, key, subset, pool, (shard_size, seed))
    return open_plan(directory, key)


def planned_key(directory: Path) -> str | None:
    """Key of the plan in `directory`, None when there is none."""
    path = directory / "plan.json"
    return str(read_json(path)["key"]) if path.exists() else None


@lru_cache(maxsize=1)
def open_plan(directory: Path, key: str) -> ExportPlan:
    """The plan in `directory`, which has this key; its arrays are mapped, not read."""
    record = read_json(directory / "plan.json")
    assert record["key"] == key, f"{directory} holds the plan {record['key']}, not {key}"
    rows, cards = (_mapped(directory / name) for name in ("rows.npy", "cards.npy"))
    return ExportPlan(directory=directory, rows=rows, cards=cards, **record)


def _write_plan(directory: Path, key: str, subset: Subset, pool: PoolRecord, how: tuple[int, int]) -> None:
    rows, sources = _find_rows(subset, pool.samples_path)
    missing = rows["source"] < 0
    found, rows = (subset.only(~missing), rows[~missing]) if missing.any() else (subset, rows)
    shards = shards_needed(found.total, how[0])
    _save(directory / "rows.npy", rows)
    _save(directory / "cards.npy", deal(found.uids, found.counts, shards, how[1]))
    with publishing(directory / "lost.parquet") as file:
        write_parquet(file, _lost(subset.only(missing), sources, pool))
    record = {
        "key": key,
        "shards": shards,
        "total": found.total,
        "distinct": len(found.uids),
        "meeting": int(np.maximum(found.counts - shards, 0).sum()),
        "size": int((_archived(rows) * found.counts).sum()),
        "sources": sources,
    }
    publish_json(directory / "plan.json", record)


def _find_rows(subset: Subset, samples: Path) -> tuple[Rows, list[str]]:
    """The pool's row of every uid of the subset, source -1 where it has none; and the sources."""
    rows = np.zeros(len(subset.uids), ROW)
    rows["source"] = -1
    sources: dict[str, int] = {}
    with pq.ParquetFile(samples) as file:
        for batch in file.iter_batches(BATCH, columns=["uid", "shard", "image_format", *RANGES]):
            uids = uid_bytes(batch["uid"])
            # The table is sorted by uid, so a batch concerns one stretch of the subset.
            start = int(np.searchsorted(subset.uids, uids[0], side="left"))
            stop = int(np.searchsorted(subset.uids, uids[-1], side="right"))
            places = np.searchsorted(uids, subset.uids[start:stop])
            there = np.flatnonzero(uids[places] == subset.uids[start:stop])
            rows[start + there] = _rows(batch.take(pa.array(places[there])), uids[places[there]], sources)
    return rows, list(sources)


def _rows(batch: pa.RecordBatch, uids: Bytes16, sources: dict[str, int]) -> Rows:
    rows = np.empty(batch.num_rows, ROW)
    rows["uid"] = uids.view(np.uint8).reshape(-1, 16)
    rows["source"] = _coded(batch["shard"], lambda name: sources.setdefault(name, len(sources)))
    rows["format"] = _coded(batch["image_format"], FORMATS.index)
    for name in RANGES:
        rows[name] = batch[name].fill_null(-1).to_numpy()
    return rows


def _coded(texts: pa.Array, code: Callable[[str], int]) -> npt.NDArray[np.int32]:
    """The code of each text; asked for once for each that is different."""
    coded = texts.dictionary_encode()
    return np.array([code(text) for text in coded.dictionary.to_pylist()], np.int32)[coded.indices.to_numpy()]


def _lost(missing: Subset, sources: Sequence[str], pool: PoolRecord) -> pa.Table:
    """A row for every uid that the pool has not, with why it was not downloaded, or why the pool rejected it."""
    known: dict[bytes, Why] = {}
    if len(missing.uids):
        known = dead_links(missing.uids, sources, pool.directory) | _rejected(pool)
    unknown = ("", "not_in_pool", "the pool has no sample of this uid")
    uids = uid_array(missing.uids)
    why = [known.get(uid, unknown) for uid in uids.storage.to_pylist()]
    texts = [pa.array([one[i] for one in why], pa.string()) for i in range(3)]
    return pa.table([uids, pa.array(missing.counts), *texts], schema=LOST)


def _rejected(pool: PoolRecord) -> dict[bytes, Why]:
    with pq.ParquetFile(pool.rejects_path) as file:
        rejects = file.read(["uid", "shard", "reason", "detail"]).drop_null()
    columns = (rejects["uid"].combine_chunks().storage, rejects["shard"], rejects["reason"], rejects["detail"])
    return {uid: (a, b, c) for uid, a, b, c in zip(*(column.to_pylist() for column in columns), strict=True)}


def _archived(rows: Rows) -> npt.NDArray[np.int64]:
    """Bytes of each sample's members in a tar; a json that is still to be written counts as one block."""
    sizes = np.stack([np.maximum(rows[f"{member}_size"], 1) for member in MEMBERS])
    return np.asarray((padded(sizes) + BLOCK).sum(axis=0))


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with publishing(path) as file:
        # Not np.save: it writes past the file object and loses the reason when the disk is full.
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        if array.size:
            file.write(array.view(np.uint8).data)


def _mapped(path: Path) -> npt.NDArray[Any]:
    """A saved array, mapped; one of no entries cannot be, and is read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)
