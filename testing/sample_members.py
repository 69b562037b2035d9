"""All members of samples as they lie in their shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.files.remotes import Range
from tasks.pool.samples import MEMBERS, Rows, listed, read_by_shard


def read_members(rows: Rows, root: str | Path = "") -> list[dict[str, bytes]]:
    """`image`, `text` and (where there is one) `json` bytes of every row: one read spanning the sample's
    members each."""
    columns = ["shard"] + [f"{member}_{part}" for member in MEMBERS for part in ("offset", "size")]
    table = listed(rows, columns)
    spans = read_by_shard(table, root, _span)
    return [_cut(row, span) for row, span in zip(table, spans, strict=True)]


def _span(row: Mapping[str, Any]) -> Range:
    """The bytes from a sample's first member to its last; they are adjacent, the index refuses other
    samples."""
    offsets = [(row[f"{m}_offset"], row[f"{m}_size"]) for m in MEMBERS if row[f"{m}_offset"] is not None]
    return min(start for start, _ in offsets), max(start + size for start, size in offsets)


def _cut(row: Mapping[str, Any], span: bytes) -> dict[str, bytes]:
    first, _ = _span(row)
    present = [m for m in MEMBERS if row[f"{m}_offset"] is not None]
    return {m: span[row[f"{m}_offset"] - first :][: row[f"{m}_size"]] for m in present}
