"""Joining the parts of a pool that is too large for memory: to the bytes that `pools` gives in one piece.

The parts are dealt out by uid into buckets on disk, ranges of uids that hold about BUCKET samples each; a bucket fits
in memory. In each, later samples of a uid are parted from the first; then the types of the upstream columns are known
for the whole pool, metadata is dealt out to the samples' buckets, and the buckets are written one after the other,
which is the order of the uids.

Cost: 2 GiB of memory, and 16 bytes a sample where there is metadata; the parts (and the metadata's matching rows)
twice more on disk meanwhile; about 30 microseconds a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.files.remote_files import Reader
from tasks.pool.json_columns import Kinds, spread
from tasks.pool.metadata import add_metadata, metadata_rows
from tasks.tables.published import typed
from tasks.tables.streams import RowWriter
from tasks.tables.uids import Bytes16, uid_bytes

BUCKET = 1 << 18
"""Samples of a bucket, about 3 kB of memory each while their json texts are parsed."""
WAITING = 1 << 20
"""Rows that are dealt out at once: each time, every bucket gets a file."""
SAMPLED = 100
"""Every so manieth uid is looked at to find the buckets' bounds."""

Positions = npt.NDArray[np.int64]


@dataclass
class Repeats:
    """Later samples of a uid, and the first one of each: uid, shard, key, and the position among all samples."""

    later: list[dict[str, Any]] = field(default_factory=list)
    first: list[dict[str, Any]] = field(default_factory=list)

    def in_order(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Pairs of a later sample and the first one, as the later ones stand in the pool."""
        yield from sorted(zip(self.later, self.first, strict=True), key=lambda pair: int(pair[0]["position"]))


@dataclass
class Spill:
    """Rows dealt out into buckets, files of a directory; a bucket's rows keep the order in which they came."""

    directory: Path
    waiting: list[tuple[pa.Table, Positions]] = field(default_factory=list)
    written: int = 0

    def add(self, rows: pa.Table, buckets: Positions) -> None:
        """Deal out rows (n,) to `buckets` (n,)."""
        self.waiting.append((rows, buckets))
        if sum(rows.num_rows for rows, _ in self.waiting) >= WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if not self.waiting:
            return
        rows = pa.concat_tables([rows for rows, _ in self.waiting], promote_options="permissive")
        buckets = np.concatenate([numbers for _, numbers in self.waiting])
        order = np.argsort(buckets, kind="stable")
        numbers, starts = np.unique(buckets[order], return_index=True)
        for number, indices in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            place = self.directory / f"{number:05d}"
            place.mkdir(parents=True, exist_ok=True)
            part = rows.take(pa.array(indices))
            path = str(place / f"{self.written:06d}.arrow")
            with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, part.schema) as writer:
                writer.write_table(part)
        self.waiting, self.written = [], self.written + 1

    def read(self, bucket: int) -> list[pa.Table]:
        """A bucket's rows, in pieces."""
        tables = []
        for path in sorted((self.directory / f"{bucket:05d}").glob("*.arrow")):
            with pa.OSFile(str(path), "rb") as file:
                tables.append(pa.ipc.open_file(file).read_all())
        return tables


def is_large(parts: Sequence[Path]) -> bool:
    """Whether the parts have more samples than should be joined in one piece; what cannot be read is told when it is
    read."""
    try:
        return sum(pq.read_metadata(path).num_rows for path in parts) > BUCKET
    except (OSError, pa.ArrowException):
        return False


def join_parts(
    tables: Iterator[pa.Table],
    paths: Sequence[Path],
    metadata: Sequence[str],
    reader: Reader,
    work: Path,
    out: BinaryIO,
) -> tuple[int, Repeats, int | None]:
    """Write the samples table of parts (schema PART, in the order of the shards); `paths` are where they came from.

    Returns how many samples there are, those that came again, and how many have no metadata, if there is some. `work`
    is a directory for what is in the way of memory.
    """
    bounds = _bounds(paths)
    dealt = Spill(work / "parts")
    start = 0
    for table in tables:
        numbered = table.append_column("position", pa.array(np.arange(start, start + table.num_rows)))
        dealt.add(numbered, np.searchsorted(bounds, uid_bytes(table["uid"]), side="right").astype(np.int64))
        start += table.num_rows
    dealt.flush()
    kept, repeats, kinds, sizes = _first_ones(dealt, len(bounds) + 1, work)
    rows = _dealt_metadata(kept, sizes, kinds, metadata, reader, work) if metadata else None
    missing = _write(kept, sizes, kinds, rows, out)
    return int(sum(sizes)), repeats, missing if metadata else None


def _bounds(paths: Sequence[Path]) -> Bytes16:
    """Lowest uids of the second and later buckets."""
    rows, some = 0, []
    for path in paths:
        uids = uid_bytes(pq.ParquetFile(path).read(["uid"])["uid"])
        some.append(uids[(-rows) % SAMPLED :: SAMPLED])
        rows += len(uids)
    ordered = np.sort(np.concatenate(some))
    buckets = -(-rows // BUCKET)
    return np.unique(ordered[np.arange(1, buckets) * len(ordered) // buckets])


def _first_ones(dealt: Spill, buckets: int, work: Path) -> tuple[Spill, Repeats, Kinds, list[int]]:
    """Samples without those that came again, sorted in their buckets; and what they are like."""
    kept, repeats, kinds, sizes = Spill(work / "kept"), Repeats(), Kinds(), []
    for bucket in range(buckets):
        pieces = dealt.read(bucket)
        if not pieces:
            sizes.append(0)
            continue
        rows = pa.concat_tables(pieces)
        uids = uid_bytes(rows["uid"])
        order = np.argsort(uids, kind="stable")
        repeated = np.zeros(len(order), bool)
        repeated[1:] = uids[order][1:] == uids[order][:-1]
        first, later = order[~repeated], order[repeated]
        originals = first[np.searchsorted(uids[first], uids[later])]
        named = rows.select(["uid", "shard", "key", "position"])
        repeats.later += named.take(pa.array(later)).to_pylist()
        repeats.first += named.take(pa.array(originals)).to_pylist()
        samples = rows.drop_columns(["position"]).take(pa.array(first))
        kinds.see(samples)
        kept.add(samples, np.full(len(first), bucket))
        kept.flush()
        sizes.append(len(first))
    return kept, repeats, kinds, sizes


def _dealt_metadata(
    kept: Spill, sizes: list[int], kinds: Kinds, urls: Sequence[str], reader: Reader, work: Path
) -> tuple[Spill, pa.Schema | None]:
    """The metadata's rows in their samples' buckets, with the position `at` of each one's sample in it; and the types
    that the columns have in all files together (None: there is no row in any)."""
    uids = np.concatenate([uid_bytes(table["uid"]) for bucket in range(len(sizes)) for table in kept.read(bucket)])
    starts = np.cumsum([0, *sizes])
    first = next(bucket for bucket, size in enumerate(sizes) if size)
    names = spread(kept.read(first)[0].slice(0, 1), kinds).column_names
    dealt, schema = Spill(work / "metadata"), None
    for rows, at in metadata_rows(urls, reader, uids, names):
        schemas = [rows.schema] if schema is None else [schema, rows.schema]
        schema = pa.unify_schemas(schemas, promote_options="permissive")
        buckets = np.searchsorted(starts, at, side="right") - 1
        dealt.add(rows.append_column("at", pa.array(at - starts[buckets])), buckets)
    dealt.flush()
    return dealt, schema


def _write(
    kept: Spill, sizes: list[int], kinds: Kinds, metadata: tuple[Spill, pa.Schema | None] | None, out: BinaryIO
) -> int:
    """Write the samples bucket by bucket; returns how many have no metadata."""
    writer, missing = None, 0
    for bucket, size in enumerate(sizes):
        if not size:
            continue
        samples, without = spread(pa.concat_tables(kept.read(bucket)), kinds), size
        if metadata and metadata[1] is not None:
            empty = metadata[1].append(pa.field("at", pa.int64())).empty_table()
            rows = pa.concat_tables([empty, *metadata[0].read(bucket)], promote_options="permissive")
            samples, without = add_metadata(samples, rows.drop_columns(["at"]), rows["at"].to_numpy())
        table, missing = typed("samples", samples), missing + without
        writer = writer or RowWriter(out, table.schema)
        writer.add(table)
    assert writer is not None, "there is a sample in some bucket"
    writer.close()
    return missing
