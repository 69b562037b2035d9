"""Reading single samples: one ranged read a sample, through fsspec, without touching the rest of its shard.

Rows are those of the samples table: `shard`, and the offset and size of each member in it. A relative `shard`
lies under `root` (the pool's directory); an absolute path or a URL stands for itself. Costs one request a
sample on remote stores, one open file a shard on local ones. Nothing is cached here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

MEMBERS = ("image", "text", "json")
Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]


class ShardChanged(OSError):
    """A shard no longer holds what its index says."""


def resolve(shard: str, root: str | Path = "") -> str:
    """Where a `shard` value of the samples table points: itself if absolute or a URL, else below `root`."""
    if "://" in shard or os.path.isabs(shard):
        return shard
    return f"{str(root).rstrip('/')}/{shard}" if str(root) else shard


def read_sample(row: Mapping[str, Any], root: str | Path = "", fs: AbstractFileSystem | None = None) -> bytes:
    """The image bytes of one row, by one ranged read; `fs` saves looking the file system up again."""
    url = resolve(row["shard"], root)
    path = url
    if fs is None:
        fs, path = url_to_fs(url)
    start, end = _image_range(row)
    return _checked(url, start, end, fs.cat_file(path, start=start, end=end))


def read_images(rows: Rows, root: str | Path = "") -> list[bytes]:
    """The image bytes of every row, in the order of the rows, read shard by shard in the order of the
    offsets."""
    columns = ["shard", "image_offset", "image_size"]
    return _read_by_shard(_listed(rows, columns), root, _image_range)


def read_members(rows: Rows, root: str | Path = "") -> list[dict[str, bytes]]:
    """`image`, `text` and (where there is one) `json` bytes of every row: one read spanning the sample's
    members each."""
    columns = ["shard"] + [f"{member}_{part}" for member in MEMBERS for part in ("offset", "size")]
    listed = _listed(rows, columns)
    spans = _read_by_shard(listed, root, _span)
    return [_cut(row, span) for row, span in zip(listed, spans, strict=True)]


def _read_by_shard(
    rows: Sequence[Mapping[str, Any]], root: str | Path, span: Callable[[Mapping[str, Any]], tuple[int, int]]
) -> list[bytes]:
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["shard"], rows[i]["image_offset"]))
    result: list[bytes] = [b""] * len(rows)
    start = 0
    while start < len(order):
        shard = rows[order[start]]["shard"]
        stop = start
        while stop < len(order) and rows[order[stop]]["shard"] == shard:
            stop += 1
        chosen = order[start:stop]
        for i, data in zip(
            chosen, _read_ranges(resolve(shard, root), [span(rows[i]) for i in chosen]), strict=True
        ):
            result[i] = data
        start = stop
    return result


def _read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    fs, path = url_to_fs(url)
    starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
    if isinstance(fs, LocalFileSystem):
        with open(path, "rb") as file:
            blocks = [os.pread(file.fileno(), end - start, start) for start, end in ranges]
    else:
        blocks = fs.cat_ranges([path] * len(ranges), starts, ends, on_error="raise")
    return [_checked(url, *span) for span in zip(starts, ends, blocks, strict=True)]


def _checked(url: str, start: int, end: int, data: bytes) -> bytes:
    if len(data) == end - start:
        return data
    raise ShardChanged(
        f"{url}: bytes {start:,} to {end:,} were in the shard when it was indexed, now it gives "
        f"{len(data):,} of {end - start:,}. The file was replaced or cut: restore it, or remove the pool's "
        "directory to index it again"
    )


def _image_range(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["image_offset"], row["image_offset"] + row["image_size"]


def _span(row: Mapping[str, Any]) -> tuple[int, int]:
    """The bytes from a sample's first member to its last; they are adjacent, the index refuses other
    samples."""
    offsets = [(row[f"{m}_offset"], row[f"{m}_size"]) for m in MEMBERS if row[f"{m}_offset"] is not None]
    return min(start for start, _ in offsets), max(start + size for start, size in offsets)


def _cut(row: Mapping[str, Any], span: bytes) -> dict[str, bytes]:
    first, _ = _span(row)
    present = [m for m in MEMBERS if row[f"{m}_offset"] is not None]
    return {m: span[row[f"{m}_offset"] - first :][: row[f"{m}_size"]] for m in present}


def _listed(rows: Rows, columns: list[str]) -> Sequence[Mapping[str, Any]]:
    return rows.select(columns).to_pylist() if isinstance(rows, pa.Table) else rows
