"""Listings and folders: what is guessed and told, what is img2dataset's work, and mistakes that stop."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.files import progress
from tasks.files.source_patterns import SourceError
from tasks.sharding.attempts import ShardingError
from tasks.sharding.folders import RUN
from tasks.sharding.options import ShardOptions
from tasks.sharding.plans import plan_shards
from testing.picture_sources import FORMS, pairs, picture, shard_plainly


@pytest.fixture
def said() -> list[str]:
    heard: list[str] = []
    progress.watch(lambda what, done, total: heard.append(what))
    yield heard
    progress.watch(None)


def listing(tmp_path: Path, text: str, name: str = "list.csv") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_guess_is_told_and_a_name_overrules_it(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1))
    source = listing(tmp_path, "file,text,alt\na.jpg,one,two\n")
    meta = shard_plainly([source], tmp_path / "out", tmp_path / "home")
    assert meta["output_count"] == 1 and any("captions from 'text' (guessed" in one for one in said)
    options = ShardOptions(caption_col="alt")
    shard_plainly([source], tmp_path / "out 2", tmp_path / "home", options)
    assert pq.read_table(tmp_path / "out 2" / "00000000.parquet")["caption"].to_pylist() == ["two"]
    with pytest.raises(ShardingError, match="no column 'altt'"):
        shard_plainly([source], tmp_path / "out 3", tmp_path / "home", ShardOptions(caption_col="altt"))


def test_web_addresses_are_img2datasets_work(tmp_path: Path) -> None:
    source = listing(tmp_path, "url,caption,uid\nhttps://example.invalid/1.jpg,one,01\n")
    with pytest.raises(ShardingError) as caught:
        shard_plainly([source], tmp_path / "out", tmp_path / "home", ShardOptions(image_size=256, resize_mode="border"))
    command = next(line for line in str(caught.value).splitlines() if "--url_list" in line)
    assert shlex.split(command) == [
        "img2dataset", f"--url_list={source}", "--input_format=csv", "--output_format=webdataset",
        "--output_folder=list-pictures", "--url_col=url", "--caption_col=caption", '--save_additional_columns=["uid"]',
        "--image_size=256", "--resize_mode=border", "--resize_only_if_bigger=True",
    ]  # fmt: skip
    urls = listing(tmp_path, "https://example.invalid/1.jpg\n", "urls.txt")
    with pytest.raises(ShardingError, match=r"--input_format=txt .*--disable_all_reencoding=True"):
        shard_plainly([urls], tmp_path / "out", tmp_path / "home")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("list.csv", "a,b\n1,2\n", "which column has the pictures' places"),
        ("list.csv", "path,n\na.jpg,2\n", "which column has the captions"),
        ("list.csv", "path,path\n1,2\n", "more than one column"),
        ("list.csv", "path,caption\n", "no pictures in the sources"),
        ("list.jsonl", '[{"path": 1}]\n', "one JSON array"),
        ("list.csv", "\0\0\0\0", "nothing but zeros"),
    ],
)
def test_a_listing_that_is_none_stops(name: str, text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises((ShardingError, SourceError), match=told):
        shard_plainly([listing(tmp_path, text, name)], tmp_path / "out", tmp_path / "home")


def test_rows_that_are_none_fail_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1))
    source = listing(tmp_path, 'path,caption\na.jpg,one\na.jpg\nb.jpg,two\n,three\na.jpg,"four, quoted"\n')
    meta = shard_plainly([source], tmp_path / "out", tmp_path / "home")
    assert meta["output_count"] == 2 and meta["failures"] == {"bad_row": 1, "missing_image": 2}
    lines = listing(tmp_path, '{"path": "a.jpg", "text": "one"}\n{"path": \n{"path": 3, "text": "x"}\n', "l.jsonl")
    meta = shard_plainly([lines], tmp_path / "out 2", tmp_path / "home")
    assert meta["output_count"] == 1 and meta["failures"] == {"bad_json": 1, "missing_image": 1}


def test_folders_without_any_caption_stop_and_names_can_be_captions(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a_red_bus.jpg").write_bytes(picture(1))
    with pytest.raises(ShardingError, match="no captions"):
        shard_plainly([str(tmp_path / "flat")], tmp_path / "out", tmp_path / "home")
    shard_plainly([str(tmp_path / "flat")], tmp_path / "out", tmp_path / "home", ShardOptions(captions="names"))
    assert pq.read_table(tmp_path / "out" / "00000000.parquet")["caption"].to_pylist() == ["a red bus"]


def test_what_is_passed_over_in_a_folder_is_told(tmp_path: Path, said: list[str]) -> None:
    source = Path(FORMS["pictures with sidecars"](tmp_path / "source", pairs(4)))
    (source / "part 0" / "sound.ogg").write_bytes(b"x")
    (source / "README.txt").write_text("hello")
    (source / ".hidden").mkdir()
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe.jpg")
    (source / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    meta = shard_plainly([str(source)], tmp_path / "out", tmp_path / "home")
    assert meta["output_count"] == 4 and meta["failures"] == {"missing_image": 1}
    told = next(one for one in said if "passed over" in one)
    assert all(word in told for word in ("1 ogg", "1 txt", "1 hidden", "1 link to a folder above it", "1 no file")), (
        told
    )


def test_names_of_a_large_folder_come_sorted_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pairs(40)
    source = FORMS["CSV"](tmp_path / "source", made)
    folder = str(Path(source).parent / "pictures")
    options = ShardOptions(captions="names")
    whole = plan_shards([folder], tmp_path / "home", options, 100)
    monkeypatch.setattr("tasks.sharding.folders.RUN", 7)
    assert RUN > 7 and plan_shards([folder], tmp_path / "home 2", options, 100).key == whole.key
    assert [one.name for one in whole.shard(0)] == sorted(f"{one.number:05d}.{one.extension}" for one in made)


def test_labels_of_a_hugging_face_table_are_classes(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["owl", "red fox"], "_type": "ClassLabel"}}
    schema = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    images = [{"bytes": picture(i), "path": None} for i in range(3)]
    table = pa.table({"image": images, "label": [1, 0, 7]}).replace_schema_metadata(schema)
    pq.write_table(table, tmp_path / "train.parquet")
    meta = shard_plainly([str(tmp_path / "train.parquet")], tmp_path / "out", tmp_path / "home")
    captions = pq.read_table(tmp_path / "out" / "00000000.parquet")["caption"].to_pylist()
    assert captions == ["a photo of a red fox", "a photo of a owl", None] and meta["failures"] == {"missing_text": 1}


def test_a_row_group_that_is_damaged_costs_its_own_rows(tmp_path: Path) -> None:
    source = Path(FORMS["Parquet with a binary column"](tmp_path / "source", pairs(4)))
    table = pq.read_table(source)
    pq.write_table(table, source, row_group_size=2, compression="none", use_dictionary=False)
    column = pq.ParquetFile(source).metadata.row_group(1).column(0)
    data = bytearray(source.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 12] = b"\xff" * 12
    source.write_bytes(data)
    meta = shard_plainly([str(source)], tmp_path / "out", tmp_path / "home")
    assert meta["output_count"] == 2 and meta["failures"] == {"corrupt_file": 2}
    source.write_bytes(bytes(data[:-100]))
    with pytest.raises(Exception, match="no sound Parquet file"):
        shard_plainly([str(source)], tmp_path / "out 2", tmp_path / "home")
