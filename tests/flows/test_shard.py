"""`mgd shard` as it is typed, and catalogs whose pool is pictures that are in no tars yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import main
from tasks.catalog.catalogs import load_catalog
from tasks.pool.record import BuildOptions
from tasks.sharding.options import ShardOptions
from tasks.sharding.pools import shards_of, tars_of
from testing.picture_sources import FORMS, pairs, shard_plainly
from testing.small_catalog import small_catalog


def test_the_command_runs_the_flow_and_gives_the_bytes_of_the_plain_calls(
    prefect_api: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    FORMS["pictures with sidecars"](tmp_path / "photos", pairs(12))
    monkeypatch.chdir(tmp_path)
    how = ["--image-size", "10", "--resize-mode", "keep_ratio", "--shard-size", "5", "--home", "home"]
    assert main(["shard", "photos", "--out", "shards", *how]) == 0
    said = capsys.readouterr()
    assert "12 samples in 3 shards" in said.out and "12 pictures" in said.err and "to read, in 3 shards" in said.err
    options = ShardOptions(image_size=10, resize_mode="keep_ratio")
    shard_plainly([str(tmp_path / "photos")], tmp_path / "plain", tmp_path / "other", options)
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "shards" / path.name).read_bytes(), path.name
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert main(["shard", "photos", "--out", "shards", *how]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    (tmp_path / "photos" / "part 0" / "00000.jpg").write_bytes(b"broken")
    assert main(["shard", "photos", "--out", "shards", "--overwrite", *how]) == 1
    assert "1 of 12 failed, 0 allowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["nowhere"], 1, "nothing at"),
        (["photos", "--image-size", "20"], 1, "does nothing"),
        (["photos", "--encode-format", "gif"], 2, "argument --encode-format"),
        (["photos", "--shard-size", "0"], 2, "argument --shard-size"),
        (["photos/part 0/00000.jpg"], 1, "one by one"),
    ],
)
def test_mistakes_end_as_one_message(
    arguments: list[str],
    status: int,
    told: str,
    prefect_api: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FORMS["pictures with sidecars"](tmp_path / "photos", pairs(2))
    monkeypatch.chdir(tmp_path)
    try:
        ended = main(["shard", *arguments, "--out", "shards", "--home", "home"])
    except SystemExit as exit:
        ended = int(exit.code or 0)
    said = capsys.readouterr().err
    assert ended == status and told in said and "Traceback" not in said, said
    assert not list((tmp_path / "shards").glob("*.tar"))


def test_a_catalogs_pool_is_sharded_where_it_has_to_be(tmp_path: Path) -> None:
    build, home = BuildOptions(), tmp_path / "home"
    tars = FORMS["tars"](tmp_path / "tars", pairs(4))
    assert tars_of(tars, home, build, None) == tars
    recut = shards_of(tars, home, build, ShardOptions(encode_format="png"))
    assert recut is not None and recut.plan.attempts == 4
    assert tars_of(str(tmp_path / "nowhere"), home, build, None) == str(tmp_path / "nowhere")
    for form in ("class folders", "CSV", "img2dataset's parquet"):
        source = FORMS[form](tmp_path / form, pairs(4))
        shards = shards_of(source, home, build, None)
        assert shards is not None and not shards.are_there and tars_of(source, home, build, None) is None
        shard_plainly([source], shards.directory, home, shard_size=build.shard_size)
        assert tars_of(source, home, build, None) == str(shards.directory)


def test_pool_and_targets_of_a_catalog_may_be_named_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.catalog.overrides import sources

    monkeypatch.chdir(tmp_path)
    path = small_catalog(tmp_path)
    changed = load_catalog(path, sources(path, "photos", "sets/mine"))
    assert changed.pool.source == str(tmp_path / "photos")
    assert {task.source for _, _, task in changed.targets.roles} == {str(tmp_path / "sets" / "mine")}


def test_a_subset_of_a_catalogs_pictures_shards_them_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = FORMS["class folders"](tmp_path / "photos", pairs(6))
    catalog = small_catalog(tmp_path)
    text = catalog.read_text()
    start = text.index("source = ")
    catalog.write_text(text[:start] + f'source = "{source}"' + text[text.index("\n", start) :])
    out = tmp_path / "all.npy"
    command = ["subset", "no_filter", "--catalog", str(catalog), "--out", str(out), "--home", str(tmp_path / "home")]
    assert main(command) == 0 and out.exists()
    assert "6 of 6 samples" in capsys.readouterr().out
