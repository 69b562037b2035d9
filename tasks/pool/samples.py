"""Reading single samples: ranged reads, through fsspec, without touching the rest of a shard.

Rows are those of the samples table: `shard`, and the offset and size of each member in it. A relative `shard` lies
below the base of the pool whose directory is `root` (`sources.load_source`); an absolute path or a URL stands for
itself. Costs one request a sample on remote stores, fewer where samples lie together, and where most of a shard is
wanted the shard comes whole into the home's cache (`remote_files`); one open file a shard on local ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from mgd_core.errors import UserError
from tasks.files.remotes import Range
from tasks.files.sources import load_source, reader_of

MEMBERS = ("image", "text", "json")
Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]


class ShardChanged(UserError, OSError):
    """A shard no longer holds what its index says."""


def resolve(shard: str, root: str | Path = "") -> str:
    """Where a `shard` value of the samples table points: itself if absolute or a URL, else below the base of the pool
    in the directory `root`."""
    if "://" in shard or os.path.isabs(shard):
        return shard
    base = load_source(root).base if str(root) else ""
    return f"{base.rstrip('/')}/{shard}" if base else shard


def read_sample(row: Mapping[str, Any], root: str | Path = "") -> bytes:
    """The image bytes of one row, by one ranged read."""
    return _read_ranges(resolve(row["shard"], root), [_image_range(row)], root)[0]


def read_images(rows: Rows, root: str | Path = "") -> list[bytes]:
    """The image bytes of every row, in the order of the rows, read shard by shard in the order of the offsets."""
    columns = ["shard", "image_offset", "image_size"]
    return read_by_shard(listed(rows, columns), root, _image_range)


def read_spans(shard: str, spans: Sequence[Range], root: str | Path) -> list[bytes]:
    """The bytes of each span of one shard, in their order."""
    return _read_ranges(resolve(shard, root), spans, root)


def read_by_shard(
    rows: Sequence[Mapping[str, Any]], root: str | Path, span: Callable[[Mapping[str, Any]], Range]
) -> list[bytes]:
    """The bytes `span` of every row, in the order of the rows."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["shard"], rows[i]["image_offset"]))
    result: list[bytes] = [b""] * len(rows)
    start = 0
    while start < len(order):
        shard = rows[order[start]]["shard"]
        stop = start
        while stop < len(order) and rows[order[stop]]["shard"] == shard:
            stop += 1
        chosen = order[start:stop]
        read = _read_ranges(resolve(shard, root), [span(rows[i]) for i in chosen], root)
        for i, data in zip(chosen, read, strict=True):
            result[i] = data
        start = stop
    return result


def _read_ranges(url: str, ranges: Sequence[Range], root: str | Path) -> list[bytes]:
    blocks = reader_of(root).ranges(url, ranges)
    return [_checked(url, *span, data) for span, data in zip(ranges, blocks, strict=True)]


def _checked(url: str, start: int, end: int, data: bytes) -> bytes:
    if len(data) == end - start:
        return data
    raise ShardChanged(
        f"{url}: bytes {start:,} to {end:,} were in the shard when it was indexed, now it gives "
        f"{len(data):,} of {end - start:,}. The file was replaced or cut: restore it, or remove the pool's "
        "directory to index it again"
    )


def _image_range(row: Mapping[str, Any]) -> Range:
    return row["image_offset"], row["image_offset"] + row["image_size"]


def listed(rows: Rows, columns: list[str]) -> Sequence[Mapping[str, Any]]:
    """Columns of `rows`, row by row."""
    return rows.select(columns).to_pylist() if isinstance(rows, pa.Table) else rows
