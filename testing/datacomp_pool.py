"""A small pool as DataComp's downloader leaves it: shards with tables and stats, metadata with npz beside it.

Made as a model first, so that a test can spoil any part of it, then written as files: tars as img2dataset writes them
(jpg, json, txt of each sample, in the order in which downloads ended), and everything beside them. Samples are tiny
pictures; every fifth link is dead; the last shard is short; uids and captions are functions of the sample's number.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from testing.field_pool import tar_of

DIMENSIONS = {"b32_img": 512, "b32_txt": 512, "l14_img": 768, "l14_txt": 768, "dedup": 256}
SHARD_SIZE = 5
SUCCESS, DEAD = "success", "failed_to_download"
Members = list[tuple[str, bytes]]


@dataclass
class Attempt:
    """One link: what was crawled, what the download gave (`image` None: nothing), and how its tar holds it."""

    uid: str
    caption: str
    image: bytes | None
    status: str
    error: str | None
    crawled_sha256: str
    record: dict[str, Any]
    extension: str = "jpg"
    members: Members | None = None
    """Other members for the tar than those that follow from the rest."""

    def tar_members(self) -> Members:
        """Names (with their dot, without the key) and bytes in the tar; empty where the download failed."""
        if self.members is not None:
            return self.members
        if self.image is None:
            return []
        record = json.dumps(self.record, indent=4).encode()
        return [(f".{self.extension}", self.image), (".json", record), (".txt", self.caption.encode())]


@dataclass
class DatacompPool:
    """The pool's model: shards of attempts, in the order of the metadata's rows."""

    directory: Path
    shards: list[list[Attempt]] = field(default_factory=list)
    seed: int = 0
    at: int = 1
    """The shard that a defect is planted in; the next one is its as well."""

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts, in the metadata's order."""
        return [attempt for shard in self.shards for attempt in shard]

    def alive(self) -> list[Attempt]:
        """Those that became samples."""
        return [attempt for attempt in self.attempts if attempt.image is not None]

    def tar(self, number: int) -> Path:
        """Path of a shard's tar."""
        return self.directory / "shards" / f"{number:08d}.tar"

    def beside(self, number: int, end: str) -> Path:
        """Path of a shard's table (`.parquet`) or stats (`_stats.json`)."""
        return self.directory / "shards" / f"{number:08d}{end}"

    def metadata(self) -> Path:
        """Path of the one metadata file."""
        return self.directory / "metadata" / f"{hashlib.md5(b'metadata').hexdigest()}.parquet"

    def write(self) -> None:
        """Write everything."""
        for number in range(len(self.shards)):
            self.write_shard(number)
        self.write_metadata()
        self.write_npz(np.float16)

    def write_shard(self, number: int) -> None:
        """Write a shard's tar, table and stats."""
        attempts = self.shards[number]
        self.tar(number).parent.mkdir(parents=True, exist_ok=True)
        ended = list(range(len(attempts)))
        random.Random(f"{self.seed}-{number}").shuffle(ended)
        members = [(f"{key_of(number, row)}{end}", data) for row in ended for end, data in attempts[row].tar_members()]
        self.tar(number).write_bytes(tar_of(members))
        rows = [
            {"uid": a.uid, "key": key_of(number, row), "caption": a.caption, "status": a.status}
            | {"error_message": a.error, "sha256": a.record.get("sha256"), "width": a.record.get("width")}
            for row, a in enumerate(attempts)
        ]
        pq.write_table(pa.Table.from_pylist(rows), self.beside(number, ".parquet"))
        counts = {status: sum(a.status == status for a in attempts) for status in (SUCCESS, DEAD, "failed_to_resize")}
        stats = {"count": len(attempts), "successes": counts[SUCCESS], **counts, "duration": 1.5, "status_dict": {}}
        self.beside(number, "_stats.json").write_text(json.dumps(stats))

    def metadata_table(self) -> pa.Table:
        """The metadata's rows, with DataComp's types."""
        rows = self.attempts
        scores = np.array([int(a.crawled_sha256[:4], 16) / 2**17 for a in rows], np.float32)
        return pa.table(
            {
                "uid": [a.uid for a in rows],
                "url": [f"http://nowhere.invalid/{i}.jpg" for i in range(len(rows))],
                "text": [a.caption for a in rows],
                "original_width": pa.array([640] * len(rows), pa.int64()),
                "original_height": pa.array([480] * len(rows), pa.int64()),
                "clip_b32_similarity_score": pa.array(scores, pa.float32()),
                "clip_l14_similarity_score": pa.array(scores / 2, pa.float32()),
                "face_bboxes": pa.array([[]] * len(rows), pa.list_(pa.list_(pa.float64()))),
                "sha256": [a.crawled_sha256 for a in rows],
            }
        )

    def write_metadata(self, table: pa.Table | None = None) -> None:
        """Write the metadata file."""
        self.metadata().parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.metadata_table() if table is None else table, self.metadata())

    def write_npz(self, dtype: Any, rows: int | None = None) -> None:
        """Write the npz beside the metadata, of `rows` rows (default: as many as the metadata has)."""
        n = len(self.attempts) if rows is None else rows
        arrays: dict[str, Any] = {name: np.ones((n, width), dtype) for name, width in DIMENSIONS.items()}
        np.savez_compressed(self.metadata().with_suffix(".npz"), **arrays)


def make_pool(directory: Path, shards: int = 3, size: int = SHARD_SIZE, first: int = 0) -> DatacompPool:
    """A pool without a defect but the dead links that any pool has; `first` is the number of its first sample."""
    numbers = iter(range(first, first + shards * size))
    lists = [[attempt(next(numbers)) for _ in range(size - (shard == shards - 1))] for shard in range(shards)]
    for shard in lists:
        kill(shard[-1])
    return DatacompPool(directory, lists)


def attempt(number: int) -> Attempt:
    """A good sample; its uid begins with a zero in one case of four."""
    uid = hashlib.md5(f"uid {number}".encode()).hexdigest()
    uid = "0" + uid[1:] if number % 4 == 0 else uid
    caption = f"caption of {number}, ünïcode ✓"
    sha256 = hashlib.sha256(f"crawled {number}".encode()).hexdigest()
    record = {
        "uid": uid, "face_bboxes": [[0.1, 0.2, 0.3, 0.4]], "caption": caption, "url": f"http://nowhere.invalid/{number}",
        "status": SUCCESS, "error_message": None, "width": 6, "height": 5, "original_width": 640,
        "original_height": 480, "exif": '{"Make": "x"}', "sha256": sha256,
    }  # fmt: skip
    return Attempt(uid, caption, picture(number), SUCCESS, None, sha256, record)


def kill(one: Attempt, status: str = DEAD, error: str = "<urlopen error timed out>") -> None:
    """Make a link dead."""
    one.image, one.status, one.error = None, status, error


def key_of(shard: int, row: int) -> str:
    """img2dataset's key: 8-digit shard id and 4-digit row."""
    return f"{shard:08d}{row:04d}"


def picture(number: int, kind: str = "JPEG", size: tuple[int, int] = (6, 5)) -> bytes:
    """A small picture's bytes, another for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
