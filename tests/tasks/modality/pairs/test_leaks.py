"""Leaks: a picture in two roles is found whatever its files are, told by both places, refused or left out; the pool's
are counted; and what is read of targets, and what is not, is told before any work."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.cli import main
from tasks.catalog.catalogs import Catalog, CatalogError, load_catalog
from tasks.catalog.target_options import TaskOptions
from tasks.curation.begin import begin_run
from tasks.modality.pairs.multitask.loading import load_targets
from tasks.modality.pairs.target_check import check_targets, target_pictures
from tasks.modality.pairs.zero_shot import load_task
from tasks.modality.registry import open_recipe
from tasks.pool.pools import build_pool
from tasks.pool.sheets import open_sheet
from testing.eval_set_files import png, write_set
from testing.small_catalog import small_catalog
from testing.whole_census import take_census

CLASSES = ["bag", "boot", "coat"]
SHEET_TEST = '[targets.tests.fashion]\nsource = "sheet"\nsplit = "test"\nclasses = "label"\n'
SET_TEST = '[targets.tests.fashion]\nsource = "wds_own_test"\nsplit = "all"\n'


def webp(tile: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tile[:, :, 0]).convert("RGB").save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def with_set(directory: Path, *changes: tuple[str, str], borrowed: str = "target") -> Catalog:
    """The small catalog, its test a whole set: 20 pictures of its own, 3 tiles of the sheet's split ``borrowed``."""
    path = small_catalog(directory, (SHEET_TEST, SET_TEST), *changes)
    tiles = open_sheet(directory / "sheet").images(borrowed)[4:7]
    files = [png(np.random.default_rng(i).integers(0, 256, (28, 28, 3), np.uint8)) for i in range(20)]
    samples = [{"cls": b"1", "webp": data} for data in [*files, *(webp(tile) for tile in tiles)]]
    write_set(directory / "wds_own_test", samples, CLASSES, ["a {c}", "the {c}"])
    catalog = load_catalog(path)
    assert isinstance(catalog, Catalog)
    return catalog


def test_a_tile_of_a_sheet_is_found_in_a_set(tmp_path: Path) -> None:
    """Before any work, in other bytes, named by file and member on both sides, with the ways out."""
    catalog = with_set(tmp_path)
    told = (
        r"3 of the 23 samples of 'fashion' are also in target, for instance \S+/wds_own_test/test/4.tar, member "
        r"'s0000020.webp', which is \S+/sheet/tiles.png, tile 244: what is tested on must be apart"
    )
    with pytest.raises(CatalogError, match=told) as refused:
        check_targets(catalog, tmp_path / "home")
    assert 'targets.on_leak = "leave out"' in str(refused.value)
    with pytest.raises(CatalogError, match=told):
        load_targets(catalog.targets, 8)


def test_it_can_be_left_out(tmp_path: Path) -> None:
    catalog = with_set(tmp_path)
    left = catalog.targets.model_copy(update={"on_leak": "leave out"})
    roles = load_targets(left, 8)
    assert len(roles.target.labels) == 40 and len(roles.tests["fashion"].labels) == 20
    assert roles.tests["fashion"].images.shape == (20, 3, 8, 8) and len(roles.tests["fashion"].places) == 20
    notes = check_targets(catalog.model_copy(update={"targets": left}), tmp_path / "home")
    assert notes[-1].startswith("3 of the 23 samples of 'fashion' are also in target") and len(notes) == 4
    every = catalog.targets.heldout.model_copy(update={"split": "target"})
    same = left.model_copy(update={"heldout": every})
    with pytest.raises(CatalogError, match="when they are left out nothing of 'heldout' remains"):
        load_targets(same, 8)


def test_tests_may_share_pictures(tmp_path: Path) -> None:
    catalog = with_set(tmp_path, borrowed="test")
    again = {**catalog.targets.tests, "sheet": catalog.targets.target.model_copy(update={"split": "test"})}
    roles = load_targets(catalog.targets.model_copy(update={"tests": again}), 8)
    assert {name: len(task.labels) for name, task in roles.tests.items()} == {"fashion": 23, "sheet": 40}


def test_the_commands_tell_before_they_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_set(tmp_path)
    for command in ("census", "plan", "curate"):
        assert main([command, str(tmp_path / "small.toml"), "--home", str(tmp_path / "home")]) == 1
        assert "3 of the 23 samples of 'fashion' are also in target" in capsys.readouterr().err
    assert not (tmp_path / "home" / "pools").exists()


def test_what_is_read_is_told_and_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = with_set(tmp_path, borrowed="test")
    write_set(tmp_path / "wds_own_test", [{"cls": b"0", "png": b""}], CLASSES, ["a {c}", "the {c}"], folder="train")
    notes = check_targets(catalog, tmp_path / "home")
    assert notes == [
        f"target: 40 of the 360 tiles in {tmp_path}/sheet: its split 'target'",
        f"heldout: 40 of the 360 tiles in {tmp_path}/sheet: its split 'heldout'",
        f"test 'fashion': 23 of the 23 pictures in {tmp_path}/wds_own_test/test; not read: train",
    ]
    with monkeypatch.context() as patch:
        patch.setattr("tasks.modality.pairs.target_check.load_told", None)  # whoever calls it now fails
        assert check_targets(catalog, tmp_path / "home") == notes
    write_set(tmp_path / "wds_own_test", [{"cls": b"0", "png": b"no picture"}], CLASSES)
    (tmp_path / "wds_own_test" / "test" / "nshards.txt").write_text("5")
    with pytest.raises(ValueError, match="cannot be decoded"):
        check_targets(catalog, tmp_path / "home")


def test_the_pools_pictures_are_looked_for_in_the_tests(tmp_path: Path) -> None:
    """In the census by shard and key; before training by uid; a count, no reason to refuse."""
    catalog = with_set(tmp_path, borrowed="pool")
    home = tmp_path / "home"
    record = take_census(str(catalog.pool.source), home, catalog.pool.build_options(), catalog.census)
    assert "tested_on" not in record.findings
    pictures = target_pictures(catalog, home)
    record = take_census(str(catalog.pool.source), home, catalog.pool.build_options(), catalog.census, pictures)
    assert record.findings["tested_on"] == 3 and record.within_budget
    found = pq.read_table(home / "census" / record.pool_id / "findings.parquet").to_pylist()
    (one,) = [row for row in found if row["kind"] == "tested_on" and row["detail"].endswith("'s0000020.webp'")]
    assert one["detail"].startswith("fashion: ") and one["shard"] and one["member"]
    pool = build_pool(str(catalog.pool.source), home, catalog.pool.build_options())
    with open_recipe(begin_run(home, tmp_path / "small.toml", pool).directory) as bench:
        (note,) = bench.notes()
    assert note == (
        f"3 of the 23 samples of 'fashion' are in the pool too, for instance {tmp_path}/wds_own_test/test/4.tar, "
        f"member 's0000020.webp', which is uid {str(one['uid']).replace('-', '')}"
    )


def task(directory: Path, split: str, **more: object) -> TaskOptions:
    return TaskOptions.model_validate({"source": str(directory), "split": split, **more})


def test_keys_without_a_use_are_refused(tmp_path: Path) -> None:
    catalog = with_set(tmp_path, borrowed="test")
    own, sheet = tmp_path / "wds_own_test", tmp_path / "sheet"
    for options, told in (
        (task(own, "all", classes="labl"), "`classes` is of no use to an evaluation set: its classes are the lines of"),
        (task(own, "all", texts="style"), "`texts` is of no use to an evaluation set: .* `templates`"),
        (task(own, "all", texts_splits=["target"]), "`texts_splits` is of no use to an evaluation set: .* `split`"),
        (task(own, "all", templates=["a {}"], max_texts=3), "with `templates` all of those are taken"),
        (task(sheet, "test", classes="label", folder="train"), "`folder` is of no use to a sheet: .* `split`"),
        (task(sheet, "test", classes="label", max_images=5), "`max_images` is of no use to a sheet"),
    ):
        with pytest.raises(CatalogError, match=told):
            load_task(options, 8)
    whole = catalog.targets.model_copy(update={"parts": catalog.targets.parts.model_copy(update={"seed": 3})})
    with pytest.raises(CatalogError, match=r"targets\.parts is of no use: no task is a part"):
        load_targets(whole, 8)
    pair = {"png": webp(np.zeros((4, 4, 1), np.uint8)), "txt": b"x"}
    pairs = write_set(tmp_path / "wds_pairs_test", [pair], kind="retrieval")
    with pytest.raises(ValueError, match="`templates` is of no use to a retrieval set"):
        load_task(task(pairs, "all", templates=["a {}"]), 8)


def test_sentences_of_the_catalog_need_no_file(tmp_path: Path) -> None:
    with_set(tmp_path, borrowed="test")
    (tmp_path / "wds_own_test" / "zeroshot_classification_templates.txt").unlink()
    loaded = load_task(task(tmp_path / "wds_own_test", "all", templates=["my {}"]), 8)
    assert loaded.class_texts == [["my bag"], ["my boot"], ["my coat"]] and len(loaded.labels) == 23
    with pytest.raises(ValueError, match=r"templates\.txt: not there"):
        load_task(task(tmp_path / "wds_own_test", "all"), 8)


def test_all_of_a_set_leaves_no_part_for_another_role(tmp_path: Path) -> None:
    held = ('[targets.heldout]\nsource = "sheet"\nsplit = "heldout"\nclasses = "label"\n',
            '[targets.heldout]\nsource = "wds_own_test"\nsplit = "heldout"\n')  # fmt: skip
    with pytest.raises(CatalogError, match="'all' is all of it, so no other role can have a part"):
        with_set(tmp_path, held)


def test_a_source_that_is_neither_sheet_nor_set_says_what_each_has(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"no test/nshards\.txt.*or a sheet: tiles\.png and table\.parquet"):
        load_task(task(tmp_path / "photos", "all"), 8)
    train = write_set(tmp_path / "wds_x_test", [{"cls": b"0", "png": b""}], CLASSES, folder="train")
    with pytest.raises(ValueError, match="it has train, which `folder` can name"):
        load_task(task(train, "all"), 8)
