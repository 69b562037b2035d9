"""Writing tile sheets (tasks.pool.sheets): what the programs beside the pools, and tests, make them with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.pool.sheets import META_KEY, TABLE, TILES, Pixels, TileSheet, open_sheet, png_bytes


def write_sheet(directory: str | Path, picture: Image.Image, table: pa.Table, meta: Mapping[str, Any]) -> TileSheet:
    """Write a laid-out picture and its table as a sheet and read it back.

    `meta` needs tile_width, tile_height and tiles_per_row. The same input gives the same bytes under the same
    versions of Pillow and pyarrow.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / TILES).write_bytes(png_bytes(picture))
    described = {META_KEY: json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()}
    kept = table.replace_schema_metadata(described)
    pq.write_table(kept, directory / TABLE, compression="zstd", compression_level=19)
    return open_sheet(directory)


def lay_out(tiles: Pixels, tiles_per_row: int) -> Pixels:
    """Tiles (n, height, width, channels) as one picture in reading order, padded with zeros."""
    n, height, width, channels = tiles.shape
    rows = -(-n // tiles_per_row)
    padded = np.zeros((rows * tiles_per_row, height, width, channels), np.uint8)
    padded[:n] = tiles
    grid = padded.reshape(rows, tiles_per_row, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, tiles_per_row * width, channels)


def tile_uid(split: str, pixels: Pixels, text: str, source: str) -> str:
    """Identity of a sample, 32 hex digits: blake2b-128 over its split, pixels, caption and picture source."""
    digest = blake2b(digest_size=16)
    for part in (split.encode(), pixels.tobytes(), text.encode(), source.encode()):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def fixed_order(names: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Indices of `names` in a pseudo-random order that depends only on the names, the seed and the purpose.

    Sorting by a keyed digest, not a random generator: NumPy does not promise equal streams across versions,
    and a sheet must come out the same for anyone who cuts it again.
    """
    key = f"{seed}/{purpose}".encode()
    digests = [blake2b(name.encode(), key=key, digest_size=16).digest() for name in names]
    return sorted(range(len(names)), key=lambda i: (digests[i], i))
