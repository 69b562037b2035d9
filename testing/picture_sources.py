"""One small set of pairs, in every form that people have: what sharding is tried on.

`write_source(form, ...)` lays the same pairs out as that form has them; `shard_plainly` shards them by the tasks' own
functions, in this process, as the flow does it through Prefect.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.pool.record import Tolerance
from tasks.sharding.options import Evaluation, ShardOptions
from tasks.sharding.plans import plan_shards
from tasks.sharding.sharding import write_shards
from tasks.sharding.writing import ShardJob, write_shard
from testing.field_pool import tar_of

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
ANY = Tolerance(max_rejects=1.0, max_damaged_shards=99)


@dataclass
class Pair:
    """A picture's file (None: there is none), its caption (None, or bytes that need not be UTF-8), its uid."""

    number: int
    image: bytes | None
    extension: str
    caption: bytes | None
    uid: str
    label: str

    @property
    def text(self) -> str | None:
        """The caption as a table has it; bytes that are no UTF-8 as half characters."""
        return None if self.caption is None else self.caption.decode("utf-8", "surrogateescape")

    @property
    def record(self) -> dict[str, Any]:
        """What a json beside it says."""
        return {"uid": self.uid, "camera": "none", "number": self.number}


def pairs(n: int, size: tuple[int, int] = (24, 18)) -> list[Pair]:
    """Good pairs: pictures of noise, of all formats in turn."""
    found = []
    for number in range(n):
        form = list(EXTENSIONS)[number % 3]
        image = picture(number, form, size)
        uid, label = hashlib.md5(str(number).encode()).hexdigest(), ("red fox", "owl")[number % 2]
        found.append(Pair(number, image, EXTENSIONS[form], f"caption {number}, a ü".encode(), uid, label))
    return found


def picture(number: int, form: str = "JPEG", size: tuple[int, int] = (24, 18)) -> bytes:
    """A picture's file, another for each number."""
    draw = np.random.default_rng(number)
    buffer = io.BytesIO()
    grid = Image.fromarray(draw.integers(0, 256, (6, 8, 3), np.uint8))
    grid.resize(size, Image.Resampling.BICUBIC).save(buffer, form)
    return buffer.getvalue()


def _sidecars(place: Path, made: Sequence[Pair]) -> str:
    for one in made:
        base = place / f"part {one.number % 2}" / f"{one.number:05d}"
        base.parent.mkdir(parents=True, exist_ok=True)
        _write(base.with_suffix(f".{one.extension}"), one.image)
        _write(base.with_suffix((".txt", ".caption")[one.number % 2]), one.caption)
        _write(base.with_suffix(".json"), json.dumps(one.record).encode())
    return str(place)


def _classes(place: Path, made: Sequence[Pair]) -> str:
    for one in made:
        path = place / one.label.replace(" ", "_") / f"{one.number:05d}.{one.extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, one.image)
    return str(place)


def _files(place: Path, made: Sequence[Pair]) -> list[str | None]:
    place.mkdir(parents=True, exist_ok=True)
    for one in made:
        _write(place / f"{one.number:05d}.{one.extension}", one.image)
    return [None if one.image is None and one.number % 2 else f"{one.number:05d}.{one.extension}" for one in made]


def _table(separator: str, name: str, names: tuple[str, str]) -> Callable[[Path, Sequence[Pair]], str]:
    def write(place: Path, made: Sequence[Pair]) -> str:
        paths = _files(place / "pictures", made)
        path = place / name
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.writer(file, delimiter=separator)
            rows.writerow([*names, "uid", "camera"])
            for one, where in zip(made, paths, strict=True):
                rows.writerow([where and f"pictures/{where}", one.text, one.uid, "none"])
        return str(path)

    return write


def _lines(place: Path, made: Sequence[Pair]) -> str:
    """Hugging Face's imagefolder: metadata.jsonl beside the pictures."""
    paths = _files(place, made)
    rows = [{"file_name": where, "text": one.text, **one.record} for one, where in zip(made, paths, strict=True)]
    (place / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place)


def _parquet_listing(place: Path, made: Sequence[Pair]) -> str:
    paths = _files(place, made)
    texts = [None if one.caption is None else one.caption.decode("utf-8", "replace") for one in made]
    table = {"path": paths, "caption": texts, "uid": [one.uid for one in made]}
    pq.write_table(pa.table(table), place / "list.parquet", row_group_size=3)
    return str(place / "list.parquet")


def _struct(place: Path, made: Sequence[Pair]) -> str:
    """Hugging Face's Parquet: `image` is a struct of bytes and path, in many row groups, in the folder `data`."""
    (place / "data").mkdir(parents=True)
    images = [None if one.image is None else {"bytes": one.image, "path": f"{one.number}.jpg"} for one in made]
    texts = [None if one.caption is None else one.caption.decode("utf-8", "replace") for one in made]
    table = pa.table({"image": images, "caption": texts, "uid": [one.uid for one in made]})
    half = len(made) // 2
    for i, part in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(part, place / "data" / f"train-{i:05d}-of-00002.parquet", row_group_size=3)
    return str(place)


def _binary(place: Path, made: Sequence[Pair]) -> str:
    place.mkdir(parents=True)
    texts = pa.array([one.caption for one in made], pa.binary())
    table = {
        "photo": pa.array([one.image for one in made], pa.large_binary()),
        "title": texts.cast(pa.string(), safe=False),
    }
    pq.write_table(pa.table({**table, "uid": [one.uid for one in made]}), place / "all.parquet")
    return str(place / "all.parquet")


def _img2dataset_files(place: Path, made: Sequence[Pair]) -> str:
    (place / "00000").mkdir(parents=True)
    for one in made:
        base = place / "00000" / f"{one.number:09d}"
        if one.image is not None:
            _write(base.with_suffix(f".{one.extension}"), one.image)
            _write(base.with_suffix(".txt"), one.caption)
            _write(base.with_suffix(".json"), json.dumps(_downloaded(one)).encode())
    _beside(place, made)
    return str(place)


def _img2dataset_parquet(place: Path, made: Sequence[Pair]) -> str:
    place.mkdir(parents=True)
    rows = [{**_downloaded(one), "jpg": one.image, "txt": one.text} for one in made]
    texts = [None if one.caption is None else one.caption.decode("utf-8", "replace") for one in made]
    table = pa.Table.from_pylist([{**row, "txt": None, "caption": None} for row in rows])
    for name in ("txt", "caption"):
        table = table.set_column(table.column_names.index(name), name, pa.array(texts, pa.string()))
    pq.write_table(table, place / "00000.parquet", row_group_size=4)
    (place / "00000_stats.json").write_text("{}")
    return str(place)


def _img2dataset_webdataset(place: Path, made: Sequence[Pair]) -> str:
    place.mkdir(parents=True)
    members = []
    for one in made:
        own = {one.extension: one.image, "json": json.dumps(_downloaded(one)).encode(), "txt": one.caption}
        members += [(f"{one.number:09d}.{name}", data) for name, data in own.items() if data is not None]
    (place / "00000.tar").write_bytes(tar_of(members))
    _beside(place, made)
    return str(place)


def _hub(place: Path, made: Sequence[Pair]) -> str:
    """A hub's cache: a snapshot of links to blobs without extensions, `refs/main` naming it."""
    real = Path(_sidecars(place / "work", made))
    for path in sorted(real.rglob("*.*")):
        blob = place / "hub" / "blobs" / hashlib.sha256(path.read_bytes() + path.name.encode()).hexdigest()
        link = place / "hub" / "snapshots" / "abc123" / path.relative_to(real)
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        path.rename(blob)
        link.symlink_to(blob)
    (place / "hub" / "refs").mkdir()
    (place / "hub" / "refs" / "main").write_text("abc123")
    return str(place / "hub")


def _tars(place: Path, made: Sequence[Pair]) -> str:
    """Tars by hand: long keys, members of other kinds, two of them."""
    (place / "shards").mkdir(parents=True)
    for half in (0, 1):
        members = []
        for one in made[half::2]:
            own = {one.extension: one.image, "txt": one.caption, "json": json.dumps(one.record).encode()}
            own["seg.png"] = b"a mask"
            members += [(f"a/b/photo{one.number:05d}.{name}", data) for name, data in own.items() if data is not None]
        (place / "shards" / f"{half}.tar").write_bytes(tar_of(members))
    return str(place)


FORMS: dict[str, Callable[[Path, Sequence[Pair]], str]] = {
    "pictures with sidecars": _sidecars,
    "class folders": _classes,
    "CSV": _table(",", "list.csv", ("path", "caption")),
    "open_clip's TSV": _table("\t", "train.csv", ("filepath", "title")),
    "JSON lines (imagefolder)": _lines,
    "Parquet of paths": _parquet_listing,
    "Parquet with Hugging Face's struct": _struct,
    "Parquet with a binary column": _binary,
    "img2dataset's files": _img2dataset_files,
    "img2dataset's parquet": _img2dataset_parquet,
    "img2dataset's webdataset": _img2dataset_webdataset,
    "a hub's cache": _hub,
    "tars": _tars,
}
"""How to write pairs as each form has them; gives the source's name."""
WITHOUT_UID = ("class folders",)


def expected(form: str, one: Pair) -> tuple[bytes, str]:
    """Picture and caption of a good pair as the form gives them."""
    assert one.image is not None
    return one.image, f"a photo of a {one.label}" if form == "class folders" else str(one.text)


def shard_plainly(
    sources: Sequence[str],
    out: Path | str,
    home: Path,
    options: ShardOptions | None = None,
    shard_size: int = 5,
    may: Tolerance = ANY,
    evaluation: Evaluation = "",
    overwrite: bool = False,
    backwards: bool = False,
) -> dict[str, Any]:
    """Shard sources in this process, in the order of the shards or backwards; returns what meta.json says."""
    options = options or ShardOptions()
    plan = plan_shards(sources, home, options, shard_size, evaluation=evaluation)

    def carry(jobs: list[ShardJob]) -> Iterator[dict[str, Any]]:
        return map(write_shard, reversed(jobs) if backwards else jobs)

    return write_shards(plan, str(out), home, options, may, carry, 1, overwrite, evaluation)


def _downloaded(one: Pair) -> dict[str, Any]:
    dead = one.image is None
    return {
        "uid": one.uid, "caption": one.caption and one.caption.decode("utf-8", "replace"), "url": f"http://x.invalid/{one.number}.jpg",
        "key": f"{one.number:09d}", "status": "failed_to_download" if dead else "success",
        "error_message": "HTTP Error 404: Not Found" if dead else None, "width": None if dead else 24, "height": 18,
        "original_width": 640, "original_height": 480, "exif": "{}", "sha256": "ab" * 32,
    }  # fmt: skip


def _beside(place: Path, made: Sequence[Pair]) -> None:
    pq.write_table(pa.Table.from_pylist([_downloaded(one) for one in made]), place / "00000.parquet")
    (place / "00000_stats.json").write_text(json.dumps({"count": len(made), "successes": len(made)}))


def _write(path: Path, data: bytes | None) -> None:
    if data is not None:
        path.write_bytes(data)
