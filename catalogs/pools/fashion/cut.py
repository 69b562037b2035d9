"""Cut the fashion pool from Fashion-MNIST (Zalando SE, MIT), or all 70,000 of it.

Needs the Debian package `dataset-fashion-mnist` (31 MB) and this project's environment:

    apt-get install dataset-fashion-mnist
    python catalogs/pools/fashion/cut.py                  # the sheet beside this file: 13,500 tiles
    python catalogs/pools/fashion/cut.py --all OUT_DIR    # 70,000 tiles, for catalogs/fashion-full.toml

Without root: `apt download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb DIR`, then
`--package DIR/usr/share/datasets/fashion-mnist`. Running it again gives the same files byte for byte
(under the versions of the project's lock).

Pool, target and held-out tiles come from the package's 60,000 training images, test tiles from its 10,000
test images, every class equally often. Half of the pool's captions then get the name of another class;
`truth_*` keeps what was true.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from catalogs.pools.cutting import fixed_order, lay_out, tile_uid, write_sheet
from tasks.pool.sheets import TileSheet

SEED = 2
SWAPPED = 0.5
TILES_PER_ROW = 128
PACKAGE = Path("/usr/share/datasets/fashion-mnist")
# The data set's ten classes in its order; "T-shirt/top" and "Ankle boot" shortened so that "a {}" reads well.
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a grey photo of a {}",
    "a small photo of a {}",
    "a {} in a shop",
)
SMALL = {"pool": 10_000, "target": 1_000, "heldout": 500, "test": 2_000}
ALL = {"pool": 58_500, "target": 1_000, "heldout": 500, "test": 10_000}


def main() -> None:
    """Command line: read the package, pick and spoil, write the sheet."""
    parser = argparse.ArgumentParser(description="Cut the fashion pool from Debian's dataset-fashion-mnist.")
    parser.add_argument("--all", metavar="OUT_DIR", type=Path, help="cut all 70,000 images into OUT_DIR")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="folder with its *-ubyte.gz files")
    options = parser.parse_args()
    out = options.all or Path(__file__).parent
    try:
        sheet = cut(options.package, out, ALL if options.all else SMALL)
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"{out}: {len(sheet.tiles)} tiles, {sheet.splits}")


def cut(package: Path, out: Path, sizes: dict[str, int]) -> TileSheet:
    """Write the sheet with `sizes` tiles a split to `out`; FileNotFoundError says how to get the package."""
    train, test = read_package(package, "train"), read_package(package, "t10k")
    rows, tiles = [], []
    for split, name, indices in pick(train[1], test[1], sizes):
        images, labels = train if name == "train" else test
        for index in indices:
            rows.append({"split": split, "source": f"{name}/{index}", "truth": int(labels[index])})
            tiles.append(images[index])
    pixels = np.stack(tiles)[..., None]
    caption(rows)
    table = tabulate(rows, pixels)
    picture = Image.fromarray(lay_out(pixels, TILES_PER_ROW)[..., 0])
    return write_sheet(out, picture, table, describe(sizes))


def read_package(package: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (n, 28, 28) and labels (n,) of one part, 'train' or 't10k'."""
    arrays = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        path = package / f"{part}-{kind}-ubyte.gz"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: not there. It is part of Debian's package dataset-fashion-mnist: run "
                "`apt-get install dataset-fashion-mnist`, or unpack the package anywhere "
                "and name its folder with --package."
            )
        arrays.append(np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header))
    return arrays[0].reshape(-1, 28, 28), arrays[1]


def pick(
    train: npt.NDArray[np.uint8], test: npt.NDArray[np.uint8], sizes: dict[str, int]
) -> list[tuple[str, str, list[int]]]:
    """(split, part, indices) for every split; classes equally often, no image twice, in mixed order."""
    picked = []
    for name, labels, splits in (("train", train, ("target", "heldout", "pool")), ("t10k", test, ("test",))):
        order = fixed_order([f"{name}/{i}" for i in range(len(labels))], SEED, "pick")
        ranks = [[i for i in order if labels[i] == c] for c in range(len(CLASSES))]
        for split in splits:
            share = sizes[split] // len(CLASSES)
            chosen = sorted(i for queue in ranks for i in queue[:share])
            ranks = [queue[share:] for queue in ranks]
            mixed = fixed_order([f"{name}/{i}" for i in chosen], SEED, "mix")
            picked.append((split, name, [chosen[i] for i in mixed]))
    return sorted(picked, key=lambda entry: list(SMALL).index(entry[0]))


def caption(rows: list[dict[str, Any]]) -> None:
    """Give every row its template and seen class: for exactly SWAPPED of the pool, another than the true."""
    pool = [row for row in rows if row["split"] == "pool"]
    order = fixed_order([row["source"] for row in pool], SEED, "swap")
    swapped = {pool[i]["source"] for i in order[: round(SWAPPED * len(pool))]}
    for row in rows:
        choices = [f"{row['source']}/{i}" for i in range(len(TEMPLATES))]
        template = TEMPLATES[fixed_order(choices, SEED, "template")[0]]
        others = [c for c in range(len(CLASSES)) if c != row["truth"]]
        other = others[fixed_order([f"{row['source']}/{c}" for c in others], SEED, "other")[0]]
        row["seen"] = other if row["split"] == "pool" and row["source"] in swapped else row["truth"]
        row["text"], row["truth_text"] = (template.format(CLASSES[row[c]]) for c in ("seen", "truth"))


def tabulate(rows: list[dict[str, Any]], pixels: npt.NDArray[np.uint8]) -> pa.Table:
    """The sheet's table; `label` follows the caption that is seen, truth_* are null outside the pool."""
    spoilt = [row["split"] == "pool" for row in rows]
    uids = [tile_uid(r["split"], tile, r["text"], r["source"]) for r, tile in zip(rows, pixels, strict=True)]
    clean = [row["seen"] == row["truth"] for row in rows]
    columns = {
        "tile": pa.array(range(len(rows)), pa.int32()),
        "uid": uids,
        "split": [row["split"] for row in rows],
        "text": [row["text"] for row in rows],
        "width": pa.array([28] * len(rows), pa.int32()),
        "height": pa.array([28] * len(rows), pa.int32()),
        "label": [CLASSES[row["seen"]] for row in rows],
        "truth_clean": pa.array([c if s else None for c, s in zip(clean, spoilt, strict=True)]),
        "truth_text": [r["truth_text"] if s else None for r, s in zip(rows, spoilt, strict=True)],
    }
    return pa.table(columns)


def describe(sizes: dict[str, int]) -> dict[str, Any]:
    """What the table's schema metadata says about layout and provenance."""
    return {
        "tile_width": 28,
        "tile_height": 28,
        "tiles_per_row": TILES_PER_ROW,
        "source": "Fashion-MNIST, Debian package dataset-fashion-mnist 0.0~git20200523.55506a9-1",
        "licence": "MIT, Copyright 2017 Zalando SE",
        "seed": SEED,
        "swapped": SWAPPED,
        "splits": sizes,
        "classes": list(CLASSES),
        "templates": list(TEMPLATES),
    }


if __name__ == "__main__":
    main()
