"""Shards as work that goes on: order, interruptions, other folders, budgets, duplicates, stores, evaluation sets."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from tasks.evaluation.eval_sets import open_eval_set
from tasks.files.export_directories import ExportError
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions, Tolerance
from tasks.sharding.attempts import ShardingError
from tasks.sharding.finishing import TooManyFailures
from tasks.sharding.options import ShardOptions
from testing.picture_sources import FORMS, pairs, shard_plainly
from testing.whole_census import take_census


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> str:
    return FORMS["pictures with sidecars"](tmp_path / "source", pairs(11))


def test_no_byte_depends_on_order_place_or_interruption(source: str, tmp_path: Path) -> None:
    shard_plainly([source], tmp_path / "a", tmp_path / "home")
    elsewhere = FORMS["pictures with sidecars"](tmp_path / "elsewhere" / "other", pairs(11))
    shard_plainly([elsewhere], tmp_path / "b", tmp_path / "another", backwards=True)
    a, b = content(tmp_path / "a"), content(tmp_path / "b")
    told_times = {"sharding.json", "meta.json"} | {name for name in a if name.endswith("_stats.json")}  # have the key
    assert {name: a[name] for name in a if name not in told_times} == {n: b[n] for n in b if n not in told_times}
    for name in ("00000001.tar", "00000002_stats.json", "meta.json", "duplicates.parquet"):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / "00000000.tar").write_bytes(b"cut")
    shard_plainly([source], tmp_path / "a", tmp_path / "home")
    assert content(tmp_path / "a") == a


def test_what_is_done_is_not_written_again(source: str, tmp_path: Path) -> None:
    shard_plainly([source], tmp_path / "out", tmp_path / "home")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    shard_plainly([source], tmp_path / "out", tmp_path / "home")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_other_sources_need_to_be_told_and_keep_the_shards_that_are_the_same(source: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard_plainly([source], out, tmp_path / "home")
    first, last = (out / "00000000.tar").stat().st_mtime_ns, (out / "00000002.tar").stat().st_mtime_ns
    for name in ("zz.jpg", "zz.txt"):
        (Path(source) / name).write_bytes(pairs(1)[0].image or b"" if name == "zz.jpg" else b"new")
    (Path(source) / "zz.jpg").rename(Path(source) / "part 1" / "zz.jpg")
    (Path(source) / "zz.txt").rename(Path(source) / "part 1" / "zz.txt")
    with pytest.raises(ExportError, match="--overwrite"):
        shard_plainly([source], out, tmp_path / "home")
    meta = shard_plainly([source], out, tmp_path / "home", overwrite=True)
    assert meta["output_count"] == 12 and (out / "00000000.tar").stat().st_mtime_ns == first
    assert (out / "00000002.tar").stat().st_mtime_ns != last
    meta = shard_plainly([source], out, tmp_path / "home", shard_size=12, overwrite=True)
    assert [path.name for path in sorted(out.glob("*.tar"))] == ["00000000.tar"] and meta["output_shard_count"] == 1


def test_a_folder_of_somebody_else_is_not_touched(source: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00000000.tar").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="not made by mgd shard"):
            shard_plainly([source], tmp_path / "out", tmp_path / "home", overwrite=overwrite)
    assert content(tmp_path / "out") == {"00000000.tar": b"mine"}


def test_too_many_failures_stop_with_what_failed(tmp_path: Path) -> None:
    made = pairs(10)
    made[3].image = b"<html>"
    source = FORMS["CSV"](tmp_path / "source", made)
    with pytest.raises(TooManyFailures, match=r"1 of 10 failed, 0 allowed .*1 undecodable_image.*list\.csv#3"):
        shard_plainly([source], tmp_path / "out", tmp_path / "home", may=Tolerance(max_rejects=0.05))
    meta = shard_plainly([source], tmp_path / "out", tmp_path / "home", may=Tolerance(max_rejects=1))
    assert meta["failures"] == {"undecodable_image": 1}
    row = pq.read_table(tmp_path / "out" / "00000000.parquet").to_pylist()[3]
    assert row["status"] == "failed_to_resize" and row["key"] == "000000000003" and row["caption"] == made[3].text


def test_a_damaged_tar_stops_before_anything_is_written(tmp_path: Path) -> None:
    source = FORMS["img2dataset's webdataset"](tmp_path / "source", pairs(10))
    tar = Path(source) / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:20_000])
    with pytest.raises(ShardingError, match="max_damaged_shards is 0"):
        shard_plainly([source], tmp_path / "out", tmp_path / "home", may=Tolerance())
    assert not (tmp_path / "out").exists()
    meta = shard_plainly(
        [source], tmp_path / "out", tmp_path / "home", may=Tolerance(max_damaged_shards=1, max_rejects=0)
    )
    assert 0 < meta["output_count"] < 10 and meta["failures"] == {"truncated_tar": 1}


def test_duplicates_are_recorded(tmp_path: Path) -> None:
    made = pairs(6)
    made[3].image, made[3].caption = made[0].image, made[0].caption
    made[4].image = made[0].image
    made[5].uid = made[1].uid
    source = FORMS["Parquet with Hugging Face's struct"](tmp_path / "source", made)
    meta = shard_plainly([source], tmp_path / "out", tmp_path / "home")
    assert meta["duplicates"] == {"pair": 1, "picture": 2, "uid": 1} and meta["output_count"] == 6
    rows = pq.read_table(tmp_path / "out" / "duplicates.parquet").to_pylist()
    assert [(row["key"][-1], row["first_key"][-1], row["alike"]) for row in rows] == [
        ("3", "0", "pair"), ("3", "0", "picture"), ("4", "0", "picture"), ("0", "1", "uid"),
    ]  # fmt: skip


def test_several_sources_are_one_pool_that_the_pool_and_the_census_read(tmp_path: Path) -> None:
    made = pairs(12)
    forms = ("pictures with sidecars", "CSV", "img2dataset's parquet", "tars")
    sources = [FORMS[form](tmp_path / str(i), made[3 * i : 3 * i + 3]) for i, form in enumerate(forms)]
    shard_plainly(sources, tmp_path / "out", tmp_path / "home")
    pool = build_pool(str(tmp_path / "out"), tmp_path / "home")
    assert pool.samples == 12 and not pool.rejects
    assert {"camera", "source", "sha256"} & set(pq.read_schema(pool.samples_path).names) == {"camera", "sha256"}
    census = take_census(str(tmp_path / "out"), tmp_path / "home", BuildOptions())
    assert {line.kind for line in census.lines if line.count} <= {"duplicate_image", "no_metadata"}, census.lines


def test_shards_go_to_a_store_and_pictures_come_from_one(source: str, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(source, "/test-sharding/pictures", recursive=True)
    shard_plainly([source], tmp_path / "out", tmp_path / "home")
    meta = shard_plainly(["memory://test-sharding/pictures"], "memory://test-sharding/out", tmp_path / "home")
    assert meta["output_count"] == 11
    assert store.cat_file("/test-sharding/out/00000001.tar") == (tmp_path / "out" / "00000001.tar").read_bytes()
    again = shard_plainly(["memory://test-sharding/pictures"], "memory://test-sharding/out", tmp_path / "home")
    assert again == meta
    store.rm("/test-sharding", recursive=True)


def test_evaluation_sets_of_classes_and_of_captions(tmp_path: Path) -> None:
    classes = FORMS["class folders"](tmp_path / "classes", pairs(8))
    options = ShardOptions(templates=("{}",))
    shard_plainly([classes], tmp_path / "set", tmp_path / "home", options, evaluation="classification")
    found = open_eval_set(str(tmp_path / "set"))
    assert found.classes == ("owl", "red fox") and found.kind == "classification"
    assert sorted(sample.label for sample in found.samples()) == [0] * 4 + [1] * 4
    captions = FORMS["CSV"](tmp_path / "captions", pairs(8))
    shard_plainly([captions], tmp_path / "retrieval", tmp_path / "home", evaluation="retrieval")
    asked = open_eval_set(str(tmp_path / "retrieval"))
    assert asked.kind == "retrieval" and len(list(asked.samples())) == 8
    with pytest.raises(ShardingError, match="what class it is of"):
        tars = FORMS["tars"](tmp_path / "tars", pairs(4))
        shard_plainly([tars], tmp_path / "no", tmp_path / "home", options, evaluation="classification")


def test_a_download_that_img2dataset_noted_as_failed_is_carried_over_and_not_counted(tmp_path: Path) -> None:
    made = pairs(6)
    made[2].image = None
    source = FORMS["img2dataset's parquet"](tmp_path / "source", made)
    meta = shard_plainly([source], tmp_path / "out", tmp_path / "home", may=Tolerance(max_rejects=0))
    assert meta["known_failures"] == 1
    stats = json.loads((tmp_path / "out" / "00000000_stats.json").read_text())
    assert stats["failed_to_download"] == 1 and stats["successes"] == 4
