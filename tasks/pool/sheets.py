"""Tile sheets: a small image-text pool as two files, one PNG of equal tiles and one Parquet table.

A sheet is a directory with

* ``tiles.png``: the tiles in reading order, `tiles_per_row` a row, the last row padded with zeros. Grey,
  palette or RGB.
* ``table.parquet``: one row a tile, in tile order. Columns `tile`, `uid`, `split`, `text`, `width`,
  `height`, then whatever the pool knows more (label, style, ...; `truth_*` where captions were spoilt on
  purpose). The schema metadata holds, under ``mgd.sheet``, a JSON object with the layout (`tile_width`,
  `tile_height`, `tiles_per_row`) and the provenance.

This is how the embedded pools travel in the repository: thousands of tiny files would cost more than the pictures.
Opening decodes the whole PNG once (10,000 tiles of 28x28: about 0.1 s, 1 byte a pixel and channel in memory). It does
not scale past what memory holds, and it trains nothing: a pool is written as WebDataset shards first.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from mgd_core.errors import UserError
from tasks.pool.decoding import WIDE_GREY, in_rgb

TILES = "tiles.png"
TABLE = "table.parquet"
META_KEY = b"mgd.sheet"
SPLITS = ("pool", "target", "heldout", "test")
REQUIRED = ("tile", "uid", "split", "text", "width", "height")
LAYOUT = ("tile_width", "tile_height", "tiles_per_row")

Pixels = npt.NDArray[np.uint8]


class SheetError(UserError, ValueError):
    """A sheet directory that cannot be used; the message says which file, why, and what to do."""


@dataclass(frozen=True, eq=False)
class TileSheet:
    """A decoded tile sheet: `table` row i describes `tiles[i]` (uint8, height x width x 1 or 3 channels)."""

    directory: Path
    tiles: Pixels
    table: pa.Table
    meta: Mapping[str, Any]

    @property
    def columns(self) -> list[str]:
        """Names of the table's columns."""
        return list(self.table.column_names)

    @property
    def splits(self) -> dict[str, int]:
        """Number of tiles of each split that occurs, in the order pool, target, heldout, test."""
        split = self.table["split"]
        counts = {name: pc.sum(pc.equal(split, name)).as_py() or 0 for name in SPLITS}
        return {name: count for name, count in counts.items() if count}

    def rows(self, split: str) -> pa.Table:
        """The table's rows of one split, in tile order; raises SheetError for a split the sheet lacks."""
        rows = self.table.filter(pc.equal(self.table["split"], split))
        if rows.num_rows == 0:
            raise SheetError(f"{self.directory}: no tiles in split {split!r}; this sheet has {self.splits}")
        return rows

    def images(self, split: str) -> Pixels:
        """The tiles of one split, uint8 (n, height, width, channels), in the order of `rows`."""
        chosen: Pixels = self.tiles[self.rows(split)["tile"].to_numpy()]
        return chosen

    def png(self, tile: int) -> bytes:
        """One tile as a PNG file of its own; the same tile gives the same bytes every time."""
        if not 0 <= tile < len(self.tiles):
            raise SheetError(f"{self.directory}: tile {tile} is not on this sheet of {len(self.tiles)} tiles")
        return png_bytes(_picture(self.tiles[tile]))


def open_sheet(directory: str | Path) -> TileSheet:
    """Read and check the sheet in `directory`; raises SheetError naming the file and what is wrong."""
    directory = Path(directory)
    for name in (TILES, TABLE):
        if not (directory / name).is_file():
            raise SheetError(f"{directory / name}: no such file; a sheet has {TILES} and {TABLE}")
    table, meta = _read_table(directory / TABLE)
    tiles = _read_tiles(directory / TILES, table.num_rows, meta)
    return TileSheet(directory, tiles, table, meta)


def cut_out(picture: Pixels, height: int, width: int) -> Pixels:
    """The inverse of `lay_out`: every tile of the picture, padding tiles included."""
    rows, per_row, channels = picture.shape[0] // height, picture.shape[1] // width, picture.shape[2]
    grid = picture.reshape(rows, height, per_row, width, channels).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(rows * per_row, height, width, channels))


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as PNG, compressed as far as zlib goes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _read_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    try:
        table = pq.read_table(path, partitioning=None)  # no columns from directories called label=3
    except (pa.ArrowException, OSError) as error:
        raise SheetError(f"{path}: not a readable Parquet file ({error}); cut the sheet again") from error
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise SheetError(f"{path}: columns {missing} are missing; a sheet's table needs {list(REQUIRED)}")
    try:
        meta = json.loads((table.schema.metadata or {}).get(META_KEY, b"{}"))
    except ValueError as error:
        raise SheetError(f"{path}: schema metadata {META_KEY.decode()!r} is not JSON ({error})") from error
    missing = [name for name in LAYOUT if not isinstance(meta.get(name), int) or meta[name] < 1]
    if missing:
        raise SheetError(f"{path}: metadata {META_KEY.decode()!r} lacks a positive {', '.join(missing)}")
    if not np.array_equal(table["tile"].to_numpy(), np.arange(table.num_rows)):
        raise SheetError(f"{path}: column 'tile' must count 0, 1, 2, ... by row; do not sort or filter the table")
    _check_rows(path, table)
    return table, meta


def _check_rows(path: Path, table: pa.Table) -> None:
    if table.num_rows == 0:
        raise SheetError(f"{path}: the table has no rows; a sheet needs at least one tile")
    distinct = pc.count_distinct(table["uid"], mode="all").as_py()
    if distinct != table.num_rows:
        raise SheetError(f"{path}: {table.num_rows - distinct} uids occur more than once; each must be unique")
    unknown = set(table["split"].unique().to_pylist()) - set(SPLITS)
    if unknown:
        raise SheetError(f"{path}: unknown split {sorted(map(str, unknown))}; splits are {', '.join(SPLITS)}")


def _read_tiles(path: Path, rows: int, meta: Mapping[str, Any]) -> Pixels:
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(in_rgb(picture))[..., : 1 if picture.mode in ("L", *WIDE_GREY) else 3]
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        raise SheetError(f"{path}: not a readable PNG ({error}); cut the sheet again") from error
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width, per_row = meta["tile_height"], meta["tile_width"], meta["tiles_per_row"]
    expected = (-(-rows // per_row) * height, per_row * width)
    if pixels.shape[:2] != expected:
        raise SheetError(
            f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, but {TABLE} has {rows} rows, which at "
            f"{per_row} tiles of {width}x{height} a row need {expected[1]}x{expected[0]}; "
            "the two files are not of one cut"
        )
    tiles = cut_out(pixels, height, width)[:rows]
    tiles.flags.writeable = False
    return tiles
