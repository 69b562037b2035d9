"""`--out` as users give it: something else is there, the folder is none, or cannot be written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.catalog.text_options import TextPoolOptions
from tasks.export.exports import export_datacomp, export_jsonl, export_parquet
from tasks.export.reshard import reshard
from tasks.files.artefacts import DiskFull
from tasks.files.export_directories import ExportError
from tasks.files.export_files import publishing_over
from tasks.pool.pools import build_pool
from tasks.pool.record import PoolRecord
from testing.manifests import write_manifest

LINE = b'{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def pool(tmp_path: Path) -> PoolRecord:
    """A pool of one text."""
    (tmp_path / "a.jsonl").write_bytes(LINE)
    options = TextPoolOptions(source=str(tmp_path / "a.jsonl"))
    return build_pool(options.sources, tmp_path / "home", options.build_options())


@pytest.fixture
def exports(pool: PoolRecord, tmp_path: Path) -> dict[str, Callable[[Path], object]]:
    """Every export that is a file, by its kind."""
    manifest = write_manifest(tmp_path / "run", 0, pq.read_table(pool.samples_path)["uid"], [2], {})
    return {
        "datacomp": lambda out: export_datacomp(manifest, out),
        "parquet": lambda out: export_parquet(manifest, out, {}),
        "jsonl": lambda out: export_jsonl(manifest, pool, out),
    }


@pytest.mark.parametrize("kind", ["datacomp", "parquet", "jsonl"])
def test_an_export_replaces_its_own_kind_and_nothing_else(
    exports: dict[str, Callable[[Path], object]], kind: str, tmp_path: Path
) -> None:
    write, out = exports[kind], tmp_path / "new" / "folder" / "out"
    write(out)
    first = out.read_bytes()
    write(out)
    assert out.read_bytes() == first
    for content in (b"my notes", b"\x00\x01"):
        out.write_bytes(content)
        with pytest.raises(ExportError, match="is there and is not"):
            write(out)
        assert out.read_bytes() == content
    for other, one in exports.items():
        if other != kind:
            one(tmp_path / other)
            with pytest.raises(ExportError, match="is there and is not"):
                write(tmp_path / other)
    with pytest.raises(ExportError, match="is a directory, this export is"):
        write(tmp_path / "new")
    with pytest.raises(ExportError, match="out is no directory"):
        write(out / "below")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="is a device or a pipe"):
        write(tmp_path / "pipe")
    assert not [path for path in tmp_path.rglob("*.tmp")]


def test_what_the_machine_refuses_is_told_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="cannot be written"), publishing_over("/proc/none/out.npy", "datacomp"):
        pass
    monkeypatch.setattr("tasks.files.export_files.os.access", lambda *_: False)
    with pytest.raises(ExportError, match="no leave to write in"), publishing_over(tmp_path / "x", "datacomp"):
        pass


def test_a_full_disk_leaves_nothing_and_says_so(small_disk: Path) -> None:
    with pytest.raises(DiskFull, match="Nothing partial"), publishing_over(small_disk / "x", "jsonl") as file:
        for _ in range(1 << 12):
            file.write(bytes(1 << 20))
    assert not list(small_disk.rglob("x*"))


def test_a_pool_of_texts_is_no_source_of_shards(pool: PoolRecord, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is of texts.*mgd export --format jsonl"):
        reshard(pool.directory, None, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
