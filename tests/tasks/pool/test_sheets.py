"""The tile-sheet format, the two embedded pools and the scripts that cut them."""

import gzip
import importlib.util
import io
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from catalogs.pools import cutting
from catalogs.pools.cutting import lay_out, write_sheet
from tasks.pool import sheets
from tasks.pool.sheets import META_KEY, TABLE, TILES, SheetError, TileSheet, open_sheet

POOLS = Path(__file__).parents[3] / "catalogs" / "pools"
FASHION = {"pool": 10_000, "target": 1_000, "heldout": 500, "test": 2_000}
EMOJI = {"pool": 5_686, "target": 796, "heldout": 231, "test": 1_478}
ICONS = EMOJI | {"pool": 18_178}


@pytest.fixture(scope="module")
def fashion() -> TileSheet:
    return open_sheet(POOLS / "fashion")


@pytest.fixture(scope="module")
def emoji() -> TileSheet:
    return open_sheet(POOLS / "emoji")


@pytest.fixture(scope="module")
def icons() -> TileSheet:
    return open_sheet(POOLS / "icons")


@pytest.fixture
def small(tmp_path: Path) -> TileSheet:
    """Seven random RGB tiles of 4 x 5 pixels, three a row."""
    tiles = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3)).astype(np.uint8)
    table = pa.table(
        {
            "tile": pa.array(range(7), pa.int32()),
            "uid": [f"{i:032x}" for i in range(7)],
            "split": ["pool"] * 4 + ["target", "heldout", "test"],
            "text": [f"picture {i}" for i in range(7)],
            "width": pa.array([5] * 7, pa.int32()),
            "height": pa.array([4] * 7, pa.int32()),
        }
    )
    meta = {"tile_width": 5, "tile_height": 4, "tiles_per_row": 3}
    sheet = write_sheet(tmp_path / "small", Image.fromarray(lay_out(tiles, 3)), table, meta)
    np.testing.assert_array_equal(sheet.tiles, tiles)
    return sheet


def load_cut(pool: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cut_{pool}", POOLS / pool / "cut.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while the class is made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_rows_images_and_png_agree(small: TileSheet) -> None:
    assert small.splits == {"pool": 4, "target": 1, "heldout": 1, "test": 1}
    assert small.rows("test")["tile"].to_pylist() == [6]
    np.testing.assert_array_equal(small.images("pool"), small.tiles[:4])
    picture = np.asarray(Image.open(io.BytesIO(small.png(5))))
    np.testing.assert_array_equal(picture, small.tiles[5])
    assert small.png(5) == open_sheet(small.directory).png(5)


def test_lay_out_and_cut_out_are_inverse() -> None:
    tiles = np.random.default_rng(1).integers(0, 256, (10, 3, 2, 1)).astype(np.uint8)
    np.testing.assert_array_equal(sheets.cut_out(lay_out(tiles, 4), 3, 2)[:10], tiles)


def test_fixed_order_is_a_permutation_that_follows_names_seed_and_purpose() -> None:
    names = [f"n{i}" for i in range(100)]
    order = cutting.fixed_order(names, 1, "swap")
    assert sorted(order) == list(range(100))
    assert order != cutting.fixed_order(names, 2, "swap") != cutting.fixed_order(names, 2, "mix")
    backwards = cutting.fixed_order(names[::-1], 1, "swap")
    assert [names[i] for i in order] == [names[::-1][i] for i in backwards]


@pytest.mark.parametrize("name", [TILES, TABLE])
def test_missing_file_is_named(small: TileSheet, name: str) -> None:
    (small.directory / name).unlink()
    with pytest.raises(SheetError, match=f"{name}: no such file"):
        open_sheet(small.directory)


@pytest.mark.parametrize("name", [TILES, TABLE])
def test_damaged_file_is_named(small: TileSheet, name: str) -> None:
    path = small.directory / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SheetError, match=f"{name}: not a readable"):
        open_sheet(small.directory)


def test_tile_count_mismatch(small: TileSheet) -> None:
    pq.write_table(small.table.slice(0, 3), small.directory / TABLE)
    with pytest.raises(SheetError, match=r"15x12 pixels, but table.parquet has 3 rows.* need 15x4"):
        open_sheet(small.directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["text"]), r"columns \['text'\] are missing"),
        (lambda t: t.take(list(range(6, -1, -1))), "must count 0, 1, 2"),
        (lambda t: t.set_column(1, "uid", pa.array(["x"] * 7)), "6 uids occur more than once"),
        (lambda t: t.set_column(2, "split", pa.array(["train"] * 7)), r"unknown split \['train'\]"),
        (lambda t: t.slice(0, 0), "no rows"),
        (
            lambda t: t.replace_schema_metadata({META_KEY: b'{"tile_width": 5}'}),
            "lacks a positive tile_height",
        ),
        (lambda t: t.replace_schema_metadata({META_KEY: b"{"}), "not JSON"),
    ],
)
def test_bad_table_says_what_is_wrong(small: TileSheet, change, message: str) -> None:
    pq.write_table(change(small.table), small.directory / TABLE)
    with pytest.raises(SheetError, match=message):
        open_sheet(small.directory)


def test_unknown_split_and_tile(small: TileSheet) -> None:
    with pytest.raises(SheetError, match="no tiles in split 'train'; this sheet has"):
        small.rows("train")
    with pytest.raises(SheetError, match="tile 7 is not on this sheet of 7 tiles"):
        small.png(7)


@pytest.mark.parametrize(("pool", "splits", "swapped"), [("fashion", FASHION, 0.5), ("emoji", EMOJI, 0.45)])
def test_embedded_pool(pool: str, splits: dict[str, int], swapped: float, request: pytest.FixtureRequest) -> None:
    sheet: TileSheet = request.getfixturevalue(pool)
    assert sheet.splits == splits == sheet.meta["splits"]
    rows = sheet.table.to_pylist()
    assert all(len(row["uid"]) == 32 and int(row["uid"], 16) >= 0 for row in rows)
    inside = [row for row in rows if row["split"] == "pool"]
    assert sum(not row["truth_clean"] for row in inside) == round(swapped * len(inside))
    assert all(row["truth_clean"] == (row["text"] == row["truth_text"]) for row in inside)
    truths = [name for name in sheet.columns if name.startswith("truth_")]
    assert all(row[name] is None for row in rows if row["split"] != "pool" for name in truths)
    assert all(row[name] is not None for row in inside for name in truths)


def test_embedded_pools_share_no_picture_between_pool_and_the_rest(
    fashion: TileSheet, emoji: TileSheet, icons: TileSheet
) -> None:
    for sheet in (fashion, emoji, icons):
        pixels = {split: {tile.tobytes() for tile in sheet.images(split)} for split in sheet.splits}
        for other in ("target", "heldout", "test"):
            assert not pixels["pool"] & pixels[other]
    assert len({tile.tobytes() for tile in fashion.tiles}) == len(fashion.tiles)


def test_fashion_labels_follow_the_caption_seen(fashion: TileSheet) -> None:
    templates = fashion.meta["templates"]
    for row in fashion.table.to_pylist():
        assert row["text"] in [template.format(row["label"]) for template in templates]
    for split in ("target", "heldout", "test"):
        counts = Counter(fashion.rows(split)["label"].to_pylist())
        assert len(counts) == 10 and len(set(counts.values())) == 1


def test_emoji_columns_follow_the_caption_seen(emoji: TileSheet) -> None:
    rows = emoji.table.to_pylist()
    assert all(row["text"] == row["concept"].replace("-", " ") for row in rows)
    subgroup = {row["text"]: row["subgroup"] for row in rows}
    assert all(row["truth_subgroup"] == subgroup[row["truth_text"]] for row in rows if row["split"] == "pool")
    seen, true = (Counter(r[c] for r in rows if r["split"] == "pool") for c in ("text", "truth_text"))
    assert seen == true, "a permutation keeps how often each caption occurs"
    styles = {split: set(emoji.rows(split)["style"].to_pylist()) for split in emoji.splits}
    assert styles["target"] == styles["heldout"] == {"emojione"} and styles["test"] == {"noto"}
    classes = {split: set(emoji.rows(split)["subgroup"].to_pylist()) for split in emoji.splits}
    assert classes["target"] == classes["heldout"] == classes["test"] <= classes["pool"]


def test_icons_are_what_the_sets_call_them(emoji: TileSheet, icons: TileSheet) -> None:
    assert icons.splits == ICONS == icons.meta["splits"]
    pool = icons.rows("pool")
    assert pool["truth_clean"].to_pylist() == [category == "Emoji" for category in pool["category"].to_pylist()]
    assert sum(pool["truth_clean"].to_pylist()) == 6_158
    assert set(pool["source"].to_pylist()) | {"emojione", "noto"} == set(icons.meta["licence"])
    for split in ("target", "heldout", "test"):
        same = ["text", "concept", "subgroup"]
        assert icons.rows(split).select(same).to_pylist() == emoji.rows(split).select(same).to_pylist()


def fake_package(directory: Path) -> Path:
    """Fashion-MNIST's four files with 400 training and 100 test images of noise."""
    rng = np.random.default_rng(5)
    for part, n in (("train", 400), ("t10k", 100)):
        images = rng.integers(0, 256, n * 784).astype(np.uint8).tobytes()
        labels = (np.arange(n) % 10).astype(np.uint8).tobytes()
        (directory / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images))
        (directory / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels))
    return directory


def test_fashion_cut_again_gives_the_same_bytes(tmp_path: Path) -> None:
    cut = load_cut("fashion")
    package = fake_package(tmp_path)
    sizes = {"pool": 200, "target": 50, "heldout": 30, "test": 40}
    first, second = (cut.cut(package, tmp_path / name, sizes) for name in ("a", "b"))
    assert first.splits == sizes
    assert sum(not clean for clean in first.rows("pool")["truth_clean"].to_pylist()) == 100
    for name in (TILES, TABLE):
        assert (first.directory / name).read_bytes() == (second.directory / name).read_bytes()


def test_fashion_cut_says_how_to_get_the_package(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        load_cut("fashion").cut(tmp_path, tmp_path / "out", FASHION)


def test_emoji_names_become_slugs_and_captions() -> None:
    cut = load_cut("emoji")
    assert cut.slug("keycap: #") == "keycap-hash"
    assert cut.slug("piñata") == "pinata"
    assert cut.slug("woman\u2019s boot") == "womans-boot"
    assert cut.Concept("face-with-monocle", "smileys-emotion", "face-glasses").text == "face with monocle"


def test_emoji_spoil_never_gives_a_sample_its_own_concept() -> None:
    cut = load_cut("emoji")
    concepts = [cut.Concept(f"c{i}", "g", "s") for i in range(30)]
    samples = [cut.Sample(style, c.slug, "pool", c, c) for style in ("x", "y", "z") for c in concepts]
    spoilt = cut.spoil(samples)
    assert sum(s.seen != s.true for s in spoilt) == round(0.45 * len(samples))


def test_sheet_metadata_names_source_and_licence(fashion: TileSheet, emoji: TileSheet, icons: TileSheet) -> None:
    for sheet in (fashion, emoji, icons):
        assert {"source", "licence", "seed"} <= set(sheet.meta)
        assert json.dumps(dict(sheet.meta))
        assert (sheet.directory / "LICENSE").is_file()


def test_opening_a_copy_elsewhere_gives_the_same_sheet(small: TileSheet, tmp_path: Path) -> None:
    copy = open_sheet(shutil.copytree(small.directory, tmp_path / "copy"))
    assert copy.table.equals(small.table)
