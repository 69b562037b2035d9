"""A pool as a stranger has it: trees of img2dataset, a hub's cache of links, and clip_benchmark sets beside them.

Nothing here is made to our taste. The files are written as the tools write them: img2dataset's `webdataset` output (its
json has `caption`, `exif`, `sha256`, `key`, ...; a shard's table and stats lie beside its tar), a hub's cache (a folder
of links to blobs that have no extension), `clip_benchmark_export_wds` (shards, nshards.txt, class names, sentences).
And they have what such pools have: two folders with equal tar names, json keys that are also columns of ours (`g`,
`count`, `caption`), keys that differ by a hyphen, dotted keys, dead links, a cut picture, archives that are no tar of
ours. Pictures are Fashion-MNIST's (the embedded sheet), at several sizes and formats; captions are its labels, some of
them wrong.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.files.package_data import CATALOGS
from tasks.pool.sheets import open_sheet

PER_SHARD = 24
"""Samples of a shard."""
CATALOG = """\
name = "field"

[pool]
source = ["crawl/part-a", "crawl/part-b", "hub/snapshots/main"]
max_rejects = 0.1

[targets.target]
source = "sets/clothes"
split = "target"

[targets.heldout]
source = "sets/clothes"
split = "heldout"

[targets.tests.clothes]
source = "sets/clothes"
split = "test"

[model]
config = "model.json"

[learner]
steps = 6
batch = 24
learning_rate = 2e-3
warmup = 2

[descent]
rounds = 1
window_start = 3
probe_steps = [4]
rule = "exchange"
p = 0.5
share = 0.2

[comparison]
subsets = ["everything", "mgd"]
seeds = [1]

[runtime]
threads = 1
"""


@dataclass(frozen=True)
class FieldPool:
    """Where everything lies, and what is in it."""

    directory: Path
    catalog: Path
    good: int
    """Samples that can be trained on."""
    bad: int
    """Samples that cannot: each must end as a reject."""


def write_field_pool(directory: Path) -> FieldPool:
    """Write pool, sets, model and catalog into ``directory``."""
    sheet = open_sheet(CATALOGS / "pools" / "fashion")
    pictures, captions = sheet.images("pool")[..., 0], sheet.rows("pool")["text"].to_pylist()
    bad = 0
    for number, place in enumerate(("crawl/part-a/00000", "crawl/part-a/00001", "crawl/part-b/00000", "blobs")):
        own = range(number * PER_SHARD, (number + 1) * PER_SHARD)
        samples = [sample(pictures[i], captions[i], i) for i in own]
        if number == 1:
            bad += _spoil(samples)
        if place == "blobs":
            _write_hub(directory / "hub", tar_of(members_of(samples, number)))
        else:
            _write_shard(directory / f"{place}.tar", samples, number)
    (directory / "crawl" / "part-a" / "00002.tar.gz").write_bytes(b"\x1f\x8b not one of ours")
    write_set(directory / "sets" / "clothes", sheet.images("target")[:120, ..., 0], _classes(sheet, "target")[:120])
    (directory / "model.json").write_bytes((CATALOGS / "models" / "fashion.json").read_bytes())
    catalog = directory / "field.toml"
    catalog.write_text(CATALOG)
    return FieldPool(directory, catalog, 4 * PER_SHARD - bad, bad)


def sample(pixels: npt.NDArray[np.uint8], caption: str, number: int) -> dict[str, Any]:
    """One download of img2dataset: its members by extension, and its row of the shard's table."""
    side = (28, 40, 64, 33)[number % 4]
    data = picture(Image.fromarray(pixels).resize((side, side + number % 3)).convert("RGB"), "JPEG")
    record = {
        "caption": caption, "url": f"https://example.invalid/{number}.jpg", "key": f"{number:09d}", "status": "success",
        "error_message": None, "width": side, "height": side + number % 3, "original_width": 640,
        "original_height": 480, "exif": json.dumps({"Image Orientation": "Horizontal (normal)"}),
        "sha256": hashlib.sha256(data).hexdigest(), "g": number / 7, "count": number % 3, "aspect-ratio": 1.5,
        "aspect_ratio": 1.25, "Text": "an upper case key", "round": "square", "select": True, "tags": ["a", {"b": 1}],
    }  # fmt: skip
    return {"members": {"jpg": data, "json": json.dumps(record, indent=4).encode(), "txt": caption.encode()}, **record}


def picture(image: Image.Image, kind: str) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def members_of(samples: Iterable[Mapping[str, Any]], shard: int) -> list[tuple[str, bytes]]:
    """Names and bytes as img2dataset keys them, five digits of the shard and four of the row; or dotted, as by hand."""
    found = []
    for row, one in enumerate(samples):
        key = f"photo.{shard:05d}{row:04d}" if one.get("dotted") else f"{shard:05d}{row:04d}"
        found += [(f"{key}.{extension}", data) for extension, data in one["members"].items()]
    return found


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar's bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def write_set(directory: Path, pictures: npt.NDArray[np.uint8], labels: list[str], shards: int = 2) -> Path:
    """An evaluation set in clip_benchmark's form, with a train folder that a zero-shot test leaves alone."""
    names = sorted(set(labels))
    for folder in ("test", "train"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
        for number in range(shards):
            rows = range(number, len(pictures), shards)
            members = []
            for row in rows:
                data = picture(Image.fromarray(pictures[row]).convert("RGB"), "PNG")
                members += [(f"s{row:07d}.png", data), (f"s{row:07d}.cls", str(names.index(labels[row])).encode())]
            (directory / folder / f"{number}.tar").write_bytes(tar_of(members))
        (directory / folder / "nshards.txt").write_text(f"{shards}\n")
    (directory / "classnames.txt").write_text("".join(f"{name}\n" for name in names))
    (directory / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\na picture of a {c}\n")
    return directory


def _spoil(samples: list[dict[str, Any]]) -> int:
    """What goes wrong in every download: a cut picture, a page instead of one, an empty caption, a missing one; and two
    dotted keys, which WebDataset's readers cut at the first dot."""
    samples[3]["members"]["jpg"] = samples[3]["members"]["jpg"][:200]
    samples[5]["members"]["jpg"] = b"<html>404 not found</html>"
    samples[7]["members"]["txt"] = b" \n"
    del samples[9]["members"]["txt"]
    samples[11]["dotted"] = samples[13]["dotted"] = True
    return 6


def _write_shard(tar: Path, samples: list[dict[str, Any]], number: int) -> None:
    """A tar with the table and stats that img2dataset leaves beside it; one link in the table was dead."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    tar.write_bytes(tar_of(members_of(samples, number)))
    columns = ("caption", "url", "key", "status", "error_message", "width", "height", "exif", "sha256")
    rows = [{name: one[name] for name in columns} for one in samples]
    dead = {**rows[0], "key": f"{number:05d}{len(rows):04d}", "status": "failed_to_download", "width": None}
    pq.write_table(pa.Table.from_pylist([*rows, dead]), tar.with_suffix(".parquet"))
    stats = {"count": len(rows) + 1, "successes": len(rows), "failed_to_download": 1, "failed_to_resize": 0}
    tar.with_name(f"{tar.stem}_stats.json").write_text(json.dumps({**stats, "duration": 3.1, "status_dict": {}}))


def _write_hub(directory: Path, data: bytes) -> None:
    """A hub's cache: `snapshots/main/00000.tar`, a link to a blob that is named by its digest."""
    digest = hashlib.sha256(data).hexdigest()
    (directory / "blobs").mkdir(parents=True)
    (directory / "blobs" / digest).write_bytes(data)
    (directory / "snapshots" / "main").mkdir(parents=True)
    (directory / "snapshots" / "main" / "00000.tar").symlink_to(f"../../blobs/{digest}")


def _classes(sheet: Any, split: str) -> list[str]:
    return [str(label) for label in sheet.rows(split)["label"].to_pylist()]
