"""A pool of the embedded pictures in the form that DataComp's downloader leaves.

Emoji and clothes in turn, at 64 pixels, nearly half of them with another's caption, as in their own pools. Some links
are dead, some pictures are no longer what was crawled (their digests differ), and CLIP's scores in the metadata know,
roughly, which captions are right. Two things differ from a real download: pictures are 64 pixels and not 512, and the
sizes before resizing are made up.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.files.package_data import CATALOGS
from tasks.pool.sheets import open_sheet
from testing.datacomp_pool import DIMENSIONS, Attempt, DatacompPool, key_of, kill

SIDE = 64
"""Pixels of a picture's side."""
DEAD, TOO_LARGE, DRIFTED = 16, 500, 7
"""Every so many-th link is dead, cannot be resized, or gives another picture than was crawled."""
FIELDS = {
    "uid": pa.string(), "face_bboxes": pa.list_(pa.list_(pa.float64())), "caption": pa.string(), "url": pa.string(),
    "key": pa.string(), "status": pa.string(), "error_message": pa.string(), "width": pa.int32(),
    "height": pa.int32(), "original_width": pa.int32(), "original_height": pa.int32(), "exif": pa.string(),
    "sha256": pa.string(),
}  # fmt: skip
"""Columns of a shard's table, in img2dataset's order."""


@dataclass
class ScoredAttempt(Attempt):
    """An attempt, and the cosines of its picture and caption that the metadata has."""

    b32: float = 0.0
    l14: float = 0.0


class RehearsalPool(DatacompPool):
    """The pool's model, with all columns of img2dataset's tables and with scores."""

    @property
    def attempts(self) -> list[ScoredAttempt]:  # type: ignore[override]
        """All attempts, in the metadata's order."""
        return [one for one in super().attempts if isinstance(one, ScoredAttempt)]

    def shard_table(self, number: int) -> pa.Table:
        """A row an attempt; what a failed one never had is null."""
        there = ("uid", "caption", "url", "key", "face_bboxes")
        rows = [
            {**one.record, "status": one.status, "error_message": one.error}
            if one.image is not None
            else {**{name: one.record[name] for name in there}, "status": one.status, "error_message": one.error}
            for one in self.shards[number]
        ]
        return pa.Table.from_pylist(rows, pa.schema(FIELDS))

    def write_shard(self, number: int) -> None:
        """Tar, stats, and the table as img2dataset has it."""
        super().write_shard(number)
        pq.write_table(self.shard_table(number), self.beside(number, ".parquet"))

    def metadata_table(self) -> pa.Table:
        """The metadata's rows: sizes of the pictures that were crawled, and scores."""
        made, rows = super().metadata_table(), self.attempts
        columns: dict[str, npt.NDArray[Any] | list[str]] = {
            "url": [one.record["url"] for one in rows],
            "original_width": np.array([one.record["original_width"] for one in rows], np.int64),
            "original_height": np.array([one.record["original_height"] for one in rows], np.int64),
            "clip_b32_similarity_score": np.array([one.b32 for one in rows], np.float32),
            "clip_l14_similarity_score": np.array([one.l14 for one in rows], np.float32),
        }
        for name, values in columns.items():
            made = made.set_column(made.schema.get_field_index(name), made.schema.field(name), pa.array(values))
        return made

    def write_npz(self, dtype: Any, rows: int | None = None) -> None:
        """Embeddings of length one, drawn from a seed."""
        draw, arrays = np.random.default_rng(self.seed), dict[str, Any]()
        for name, width in DIMENSIONS.items():
            made = draw.standard_normal((len(self.attempts) if rows is None else rows, width), np.float32)
            arrays[name] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(dtype)
        np.savez_compressed(self.metadata().with_suffix(".npz"), **arrays)

    @property
    def drifted(self) -> int:
        """Samples whose digest is not that of what was crawled."""
        return sum(one.record["sha256"] != one.crawled_sha256 for one in self.alive())


def make_pool(directory: Path, pairs: int, shard_size: int) -> RehearsalPool:
    """The pool of the first so many embedded pairs; nothing is written yet."""
    made = [_attempt(number, row, shard_size) for number, row in zip(range(pairs), _rows(), strict=False)]
    assert len(made) == pairs, f"the embedded pools have {len(made):,} pairs, not {pairs:,}"
    return RehearsalPool(directory, [made[at : at + shard_size] for at in range(0, pairs, shard_size)])


def _rows() -> Iterator[tuple[dict[str, Any], npt.NDArray[np.uint8]]]:
    """Rows and pictures of emoji and clothes in turn, then of what there is more of."""
    each = []
    for name in ("emoji", "fashion"):
        sheet = open_sheet(CATALOGS / "pools" / name)
        each.append(zip(sheet.rows("pool").to_pylist(), sheet.images("pool"), strict=True))
    return (one for one in chain.from_iterable(zip_longest(*each)) if one is not None)


def _attempt(number: int, row: tuple[dict[str, Any], npt.NDArray[np.uint8]], shard_size: int) -> Attempt:
    told, tile = row
    image, draw = jpeg(tile), np.random.default_rng(number)
    sha256 = hashlib.sha256(image).hexdigest()
    width, height = (int(side) for side in draw.integers(150, 900, 2))
    score = (0.28 if told["truth_clean"] else 0.2) + 0.03 * draw.standard_normal(2)
    record = {
        "uid": told["uid"], "face_bboxes": [], "caption": told["text"],
        "url": f"http://nowhere.invalid/{number}.jpg", "key": key_of(*divmod(number, shard_size)), "status": "success",
        "error_message": None, "width": SIDE, "height": SIDE, "original_width": width, "original_height": height,
        "exif": json.dumps({}), "sha256": sha256,
    }  # fmt: skip
    crawled = hashlib.sha256(b"before %d" % number).hexdigest() if number % DRIFTED == 1 else sha256
    b32, l14 = (float(one) for one in score)
    made = ScoredAttempt(told["uid"], told["text"], image, "success", None, crawled, record, b32=b32, l14=l14)
    if number % DEAD == DEAD - 1:
        kill(made)
    elif number % TOO_LARGE == TOO_LARGE - 1:
        kill(made, "failed_to_resize", "image decoding error")
    return made


def jpeg(tile: npt.NDArray[np.uint8]) -> bytes:
    """A tile (h, w, 1 or 3) as img2dataset would write it, but for its size."""
    buffer = io.BytesIO()
    pictured(tile).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def pictured(tile: npt.NDArray[np.uint8]) -> Image.Image:
    """A tile as a picture of 64 pixels."""
    rgb = np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile
    return Image.fromarray(rgb).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
