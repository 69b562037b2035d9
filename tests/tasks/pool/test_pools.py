"""Pools: from sheets and tars alike, killed and resumed to the same bytes, with every bad thing counted
against a budget."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from catalogs.pools.cutting import lay_out, write_sheet
from tasks.files.artefacts import DiskFull
from tasks.files.progress import watch
from tasks.files.source_patterns import SourceError
from tasks.files.sources import load_source
from tasks.pool import index_jobs
from tasks.pool.index_jobs import index_tar
from tasks.pool.pools import build_pool, finish_pool, pending_units, plan_pool, write_or_index_unit
from tasks.pool.record import BuildOptions, EmptyPool, PoolError, PoolRecord, TooManyRejects, load_pool
from tasks.pool.samples import read_images
from tasks.pool.sheets import open_sheet
from testing.children import CHILDREN

ANY = BuildOptions(max_rejects=1.0, max_damaged_shards=9)


@pytest.fixture
def sheet(tmp_path: Path, uid: Callable[[int], str]) -> Path:
    """A sheet of 7 pool tiles and one test tile."""
    tiles = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1), np.uint8)
    columns = {
        "tile": pa.array(range(8), pa.int32()),
        "uid": [uid(i) for i in (5, 3, 6, 1, 0, 2, 4, 7)],
        "split": ["pool"] * 7 + ["test"],
        "text": [f"caption {i}" for i in range(8)],
        "width": pa.array([6] * 8, pa.int32()),
        "height": pa.array([6] * 8, pa.int32()),
        "label": ["a", "b"] * 4,
        "level": list(range(8)),
        "truth_clean": [True, False, None, True, True, False, True, None],
    }
    layout = {"tile_width": 6, "tile_height": 6, "tiles_per_row": 4}
    directory = tmp_path / "Some sheet"
    write_sheet(directory, Image.fromarray(lay_out(tiles, 4)[..., 0]), pa.table(columns), layout)
    return directory


def samples_of(pool: PoolRecord) -> pa.Table:
    return pq.ParquetFile(pool.samples_path).read()


def rejects_of(pool: PoolRecord) -> list[dict]:
    return pq.ParquetFile(pool.rejects_path).read().to_pylist()


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_a_sheet_becomes_shards_and_a_table(sheet: Path, tmp_path: Path) -> None:
    pool = build_pool(sheet, tmp_path / "home", BuildOptions(shard_size=3))
    table, source = samples_of(pool), open_sheet(sheet)
    assert pool.pool_id.startswith("some-sheet-") and (pool.samples, pool.shards, pool.reasons) == (7, 3, {})
    assert [u.int for u in table["uid"].to_pylist()] == sorted(u.int for u in table["uid"].to_pylist())
    by_uid = {row["uid"]: row for row in source.rows("pool").to_pylist()}
    for row, image in zip(table.to_pylist(), read_images(table, pool.directory), strict=True):
        expected = by_uid[row["uid"].hex]
        assert {k: row[k] for k in ("text", "width", "label", "level", "truth_clean")} == {
            k: expected[k] for k in ("text", "width", "label", "level", "truth_clean")
        }
        assert image == source.png(expected["tile"])
    assert {p.name for p in (pool.directory / "shards").iterdir()} == {f"{i:05d}.tar" for i in range(3)}
    assert not (pool.directory / "parts").exists()


def test_another_home_and_a_second_time_give_the_same_bytes(sheet: Path, tmp_path: Path) -> None:
    pools = [build_pool(sheet, tmp_path / home, BuildOptions(shard_size=3)) for home in ("a", "b", "a")]
    assert files_of(pools[0].directory) == files_of(pools[1].directory)
    assert pools[0] == pools[2] == load_pool(pools[0].directory)


def test_units_in_any_order_and_interrupted_anywhere_give_the_same_bytes(sheet: Path, tmp_path: Path) -> None:
    reference = files_of(build_pool(sheet, tmp_path / "a", BuildOptions(shard_size=2)).directory)
    plan = plan_pool(sheet, tmp_path / "b", BuildOptions(shard_size=2))
    units = list(plan.units)
    random.Random(0).shuffle(units)
    for unit in units[:2]:
        write_or_index_unit(unit)
    # What a kill leaves: a shard and a part without their marker, and half a file under a temporary name.
    torn = units[2]
    write_or_index_unit(torn)
    torn.marker.unlink()
    torn.shard.write_bytes(b"torn")
    torn.shard.with_name(f".{torn.shard.name}.1-ab.tmp").write_bytes(b"half")
    with pytest.raises(PoolError, match="not done"):
        finish_pool(plan)
    assert len(pending_units(plan)) == len(units) - 2
    build_pool(sheet, tmp_path / "b", BuildOptions(shard_size=2))
    assert files_of(plan.directory) == reference and not pending_units(plan)


def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(sheet: Path, tmp_path: Path) -> None:
    reference = files_of(build_pool(sheet, tmp_path / "a", BuildOptions(shard_size=1)).directory)
    directory = plan_pool(sheet, tmp_path / "b", BuildOptions(shard_size=1)).directory

    def build() -> BaseProcess:
        child = CHILDREN.Process(target=build_pool, args=(sheet, tmp_path / "b", BuildOptions(shard_size=1)))
        child.start()
        return child

    for files in (1, 6, 12):
        builder = build()
        while builder.is_alive() and len(list(directory.rglob("*"))) < files:
            time.sleep(0.001)
        builder.kill()
        builder.join()
    last = build()
    last.join()
    assert last.exitcode == 0
    assert files_of(directory) == reference


def test_tars_are_indexed_where_they_are(shard: Callable[..., str], good: Callable[..., list], tmp_path: Path) -> None:
    paths = [
        shard([m for i in numbers for m in good(i, n=i)], f"{k}.tar") for k, numbers in enumerate([(4, 2), (3, 1)])
    ]
    home = tmp_path / "home"
    by_folder = build_pool(tmp_path / "shards", home)
    assert by_folder == build_pool(str(tmp_path / "shards/*.tar"), home) == build_pool(paths, home)
    assert set(samples_of(by_folder)["shard"].to_pylist()) == {"0.tar", "1.tar"}
    assert load_source(by_folder.directory).base == str(tmp_path / "shards") == str(Path(paths[0]).parent)
    assert [row["n"] for row in samples_of(by_folder).to_pylist()] == [1, 2, 3, 4]
    assert not (by_folder.directory / "shards").exists()


def test_a_tar_that_changed_makes_another_pool(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path
) -> None:
    path = shard(good(1))
    first = build_pool(path, tmp_path / "home")
    plan = plan_pool([path], tmp_path / "other")
    shard([*good(1), *good(2)])
    assert build_pool(path, tmp_path / "home").pool_id != first.pool_id
    with pytest.raises(PoolError, match="changed while the pool was being built"):
        write_or_index_unit(plan.units[0])


def test_tars_in_the_home_are_found_where_it_was_moved(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path
) -> None:
    shard(good(1))
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "shards").rename(home / "tars")
    pool = build_pool(home / "tars", home)
    images = list(read_images(samples_of(pool), pool.directory))
    moved = home.rename(tmp_path / "moved") / "pools" / pool.pool_id
    assert list(read_images(samples_of(pool.model_copy(update={"directory": moved})), moved)) == images
    assert not Path(load_source(moved).base).is_relative_to(home)


def told(work: Callable[[], object]) -> list[str]:
    said: list[str] = []
    watch(lambda what, *_: said.append(what))
    try:
        work()
    finally:
        watch(None)
    return said


def test_of_a_pool_that_grew_only_what_is_new_is_indexed(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(index_jobs, "index_tar", lambda unit: read.append(unit.name) or index_tar(unit))
    tars = tmp_path / "shards"
    for number in (1, 3):
        shard(good(number), f"{number:05d}.tar")
    first = build_pool(tars, tmp_path / "home", ANY)
    shard([*good(2), ("damaged.jpg", b"?")], "00002.tar")  # in between: the places of others change
    read.clear()
    said = told(lambda: build_pool(tars, tmp_path / "home", ANY))
    assert read == ["00002.tar"] and any("of its 3 files, 2 were indexed before" in line for line in said)
    grown = load_pool(plan_pool(tars, tmp_path / "home", ANY).directory)
    fresh = build_pool(tars, tmp_path / "other", ANY)
    assert grown and grown.pool_id == fresh.pool_id != first.pool_id and grown.rejects == 1
    assert files_of(grown.directory) == files_of(fresh.directory)

    read.clear()
    shard(good(4), "00001.tar")
    build_pool(tars, tmp_path / "home", ANY)
    assert read == ["00001.tar"], "what was exchanged in place is indexed anew"
    (tars / "00003.tar").unlink()
    read.clear()
    shrunk = build_pool(tars, tmp_path / "home", ANY)
    assert not read and files_of(shrunk.directory) == files_of(build_pool(tars, tmp_path / "third", ANY).directory)


def test_the_order_of_the_tars_does_not_show_in_the_table(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path
) -> None:
    paths = [shard(good(i), f"{i}.tar") for i in range(3)]
    pools = [build_pool(list(order), tmp_path / "home") for order in (paths, paths[::-1])]
    assert samples_of(pools[0]).equals(samples_of(pools[1]))


def test_duplicates_go_and_the_first_stays(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path
) -> None:
    one = shard([*good(1), *good(2)], "0.tar")
    two = shard([("x" + name, data) for name, data in [*good(2), *good(0)]], "1.tar")
    pool = build_pool([one, two], tmp_path / "home", ANY)
    (reject,) = rejects_of(pool)
    assert (reject["reason"], reject["shard"], reject["member"], reject["uid"].hex) == (
        "duplicate_uid",
        "1.tar",
        "x0002",
        "02" * 16,
    )
    assert "0.tar" in reject["detail"]
    assert [r["shard"] for r in samples_of(pool).to_pylist()] == ["1.tar", "0.tar", "0.tar"]


def test_rejects_over_the_budget_stop_with_counts_and_examples(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path
) -> None:
    bad = [member for i in range(5) for member in good(i) if i != 3 or not member[0].endswith("txt")]
    path = shard([*bad, ("bad.png", b"no"), ("bad.txt", b"t")])
    for budget in (0, 1, 0.3):
        with pytest.raises(TooManyRejects) as caught:
            build_pool(path, tmp_path / "home", BuildOptions(max_rejects=budget))
    message = str(caught.value)
    assert "2 of 6" in message and "1 missing_text" in message and "1 undecodable_image" in message
    assert "0003: missing_text" in message and "rejects.parquet" in message and "max_rejects" in message
    for budget in (2, 0.34):
        pool = build_pool(path, tmp_path / "home", BuildOptions(max_rejects=budget))
    assert (pool.samples, pool.reasons) == (4, {"missing_text": 1, "undecodable_image": 1})


def test_a_damaged_tar_has_a_budget_of_its_own(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path, tar
) -> None:
    shard(good(1), "0.tar")
    shard(tar(good(2))[:700], "1.tar")
    with pytest.raises(TooManyRejects, match=r"1 of 2 tars damaged.*1 truncated_tar.*max_damaged_shards"):
        build_pool(tmp_path / "shards", tmp_path / "home", BuildOptions(max_rejects=1.0))
    assert build_pool(tmp_path / "shards", tmp_path / "home", ANY).samples == 1


def test_an_empty_pool_stops(shard: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(EmptyPool, match="no usable sample"):
        build_pool(shard([]), tmp_path / "home", ANY)
    with pytest.raises(EmptyPool, match="1 missing_image"):
        build_pool(shard([("k.txt", b"t")]), tmp_path / "home", ANY)


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.tar", "nowhere/{0..3}.tar", [], ["nowhere.tar"]])
def test_a_source_that_is_not_there_is_named(source: object, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="tar"):
        build_pool(source, tmp_path / "home")  # type: ignore[arg-type]


def test_a_full_disk_stops_and_the_same_command_continues(sheet: Path, small_disk: Path, tmp_path: Path) -> None:
    reference = files_of(build_pool(sheet, tmp_path / "home", BuildOptions(shard_size=3)).directory)
    filler = small_disk / "filler"
    filler.write_bytes(bytes((1 << 20) - (64 << 10)))
    if shutil.disk_usage(small_disk).free > 1 << 20:
        pytest.skip("no file system of our own to fill")
    with pytest.raises(DiskFull, match="same command again"):
        build_pool(sheet, small_disk / "home", BuildOptions(shard_size=3))
    assert not [p for p in small_disk.rglob("*") if p.name.endswith(".tmp")]
    filler.unlink()
    assert files_of(build_pool(sheet, small_disk / "home", BuildOptions(shard_size=3)).directory) == reference


def test_a_foreign_record_is_named(sheet: Path, tmp_path: Path) -> None:
    pool = build_pool(sheet, tmp_path / "home")
    (pool.directory / "pool.json").write_text('{"pool_id": "x"}')
    with pytest.raises(PoolError, match="Remove"):
        build_pool(sheet, tmp_path / "home")


def test_options_refuse_nonsense() -> None:
    for wrong in ({"max_rejects": -1}, {"shard_size": 0}, {"max_reject": 1}):
        with pytest.raises(ValueError):
            BuildOptions(**wrong)  # type: ignore[arg-type]
    assert isinstance(BuildOptions(max_rejects=1).max_rejects, int)
    assert isinstance(BuildOptions(max_rejects=1.0).max_rejects, float)


def test_upstream_columns_find_types_and_free_names(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path
) -> None:
    kinds = [
        {"i": 1, "f": 1, "b": True, "mixed": 1, "l": [1.5], "Text": "up", "run": "r", "some": 2**70},
        {"f": 2.5, "mixed": "x"},
    ]
    pool = build_pool(shard([m for i, extra in enumerate(kinds) for m in good(i, **extra)]), tmp_path / "home")
    table = samples_of(pool)
    found = {name: str(table.schema.field(name).type) for name in table.column_names[13:]}
    assert found == {
        "upstream_Text": "string", "b": "bool", "f": "double", "i": "int64", "l": "string", "mixed": "string",
        "upstream_run": "string", "some": "string",
    }  # fmt: skip
    assert table["f"].to_pylist() == [1.0, 2.5] and table["mixed"].to_pylist() == ["1", '"x"']
    assert table["l"].to_pylist() == ["[1.5]", None] and table["some"][0].as_py() == str(2**70)


def test_a_home_in_a_strange_place(sheet: Path, tmp_path: Path) -> None:
    home = tmp_path / "it's [a] home=1 {x}"
    pool = build_pool(sheet, home)
    assert read_images(samples_of(pool), pool.directory) and os.path.exists(home)
