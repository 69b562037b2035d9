"""Tables: what is published is whole, sorted, typed and finite; what is not listed is not read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.files.artefacts import DiskFull
from tasks.tables.published import TableError, files, publish, read, runs
from tasks.tables.schemas import SHOWS, TABLES, doc_of
from tasks.tables.uids import uid_hex

ROOT = Path(__file__).parents[3]
Rows = Callable[..., pa.Table]


def tree(home: Path) -> dict[str, bytes]:
    return {str(p.relative_to(home)): p.read_bytes() for p in sorted((home / "tables").rglob("*")) if p.is_file()}


def test_rows_come_back_sorted_by_uid_whatever_their_order_and_chunks(tmp_path: Path, rows: Rows) -> None:
    table = rows("counts", 5, count=[5, 6, 7, 8, 9])
    shuffled = table.take(pa.array([3, 0, 4, 1, 2]))
    publish(tmp_path / "a", "r-1", "counts", 2, table)
    publish(tmp_path / "b", "r-1", "counts", 2, pa.concat_tables([shuffled.slice(0, 2), shuffled.slice(2)]))
    back = read(tmp_path / "a", "r-1", "counts", 2)
    assert back["count"].to_pylist() == [5, 6, 7, 8, 9] and back.schema.equals(TABLES["counts"], check_metadata=True)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_all_rounds_come_in_order_with_their_number(tmp_path: Path, rows: Rows) -> None:
    for number in (10, 2, 0):
        publish(tmp_path, "r-1", "counts", number, rows("counts", 1, count=[number]))
    back = read(tmp_path, "r-1", "counts")
    assert back["round"].to_pylist() == back["count"].to_pylist() == [0, 2, 10]
    assert list(files(tmp_path, "r-1", "counts")) == [0, 2, 10] and runs(tmp_path) == ["r-1"]


def test_equal_rows_again_change_nothing_and_other_rows_replace(tmp_path: Path, rows: Rows) -> None:
    publish(tmp_path, "r-1", "counts", 0, rows("counts"))
    manifest = tmp_path / "tables/_manifests/r-1.json"
    before = manifest.stat()
    publish(tmp_path, "r-1", "counts", 0, rows("counts"))
    assert manifest.stat().st_ino == before.st_ino and len(tree(tmp_path)) == 3
    publish(tmp_path, "r-1", "counts", 0, rows("counts", count=[0, 0, 0, 1]))
    assert read(tmp_path, "r-1", "counts", 0)["count"].to_pylist() == [0, 0, 0, 1]
    assert len(files(tmp_path, "r-1", "counts")) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_g_that_is_not_finite_is_refused(value: float, tmp_path: Path, rows: Rows, uid: Callable[[int], str]) -> None:
    with pytest.raises(TableError, match=f"metagradients.g: 1 of 4 values are NaN or infinite, first at uid {uid(2)}"):
        publish(tmp_path, "r-1", "metagradients", 0, rows("metagradients", g=[1.0, 2.0, value, 0.0]))
    assert not files(tmp_path, "r-1", "metagradients") and runs(tmp_path) == []


def test_rows_that_do_not_fit_are_refused(tmp_path: Path, rows: Rows) -> None:
    def refused(match: str, table: str, content: pa.Table, number: int = 0, run: str = "r-1") -> None:
        with pytest.raises(TableError, match=match):
            publish(tmp_path, run, table, number, content)

    refused("no table 'count'", "count", rows("counts"))
    refused(r"missing columns \['count'\]", "counts", rows("counts").drop_columns(["count"]))
    refused(r"unknown columns \['extra'\]", "counts", rows("counts", extra=[1] * 4))
    refused("1 of 4 values are missing", "counts", rows("counts", count=[1, None, 1, 1]))
    refused("does not fit int32", "counts", rows("counts", count=[1.5, 1, 1, 1]))
    refused("comes twice", "counts", rows("counts", uid=["ab", "ab", "ac", "ad"]))
    refused("a round is 0 or more", "counts", rows("counts"), number=-1)
    refused("a run's name", "counts", rows("counts"), run="../x")
    assert not (tmp_path / "tables").exists()


def test_samples_keep_the_pools_own_columns(tmp_path: Path, rows: Rows) -> None:
    publish(tmp_path, "r-1", "samples", 0, rows("samples", style=["a", None, "b", "c"]))
    back = read(tmp_path, "r-1", "samples", 0)
    assert back["style"].to_pylist() == ["a", None, "b", "c"] and doc_of(back.schema.field("style"))


def test_what_is_not_there_is_named(tmp_path: Path, rows: Rows) -> None:
    publish(tmp_path, "r-1", "counts", 0, rows("counts"))
    with pytest.raises(TableError, match=r"no counts for round 4; published rounds: \[0\]"):
        read(tmp_path, "r-1", "counts", 4)
    with pytest.raises(TableError, match="has published no rounds yet"):
        read(tmp_path, "r-1", "rounds")


def test_torn_and_stray_files_in_the_tree_are_not_seen(tmp_path: Path, rows: Rows) -> None:
    publish(tmp_path, "r-1", "counts", 0, rows("counts"))
    folder = files(tmp_path, "r-1", "counts")[0].parent
    for name in ("torn.parquet", ".tmp-x.parquet", "_x.parquet"):
        (folder / name).write_bytes(b"PAR1 torn")
    assert read(tmp_path, "r-1", "counts").num_rows == 4


def test_threads_publishing_at_once_lose_nothing(tmp_path: Path, rows: Rows) -> None:
    def work(number: int) -> None:
        publish(tmp_path, "r-1", "counts", number, rows("counts", count=[number] * 4))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(files(tmp_path, "r-1", "counts")) == list(range(12))


def test_killed_publishers_leave_whole_rounds_only(tmp_path: Path) -> None:
    """SIGKILL in the midst of publishing: listed files are whole, and going on gives undisturbed bytes."""
    script = (
        "import sys, pyarrow as pa; from tasks.tables.published import publish\n"
        "for r in range(8):\n"
        "  uids = [i.to_bytes(16, 'big') for i in range(3000)]\n"
        "  counts = [i * r % 7 for i in range(3000)]\n"
        "  publish(sys.argv[1], 'r-1', 'counts', r, pa.table({'uid': uids, 'count': counts}))\n"
    )
    home = tmp_path / "killed"
    for seen in (1, 4, 9):
        publisher = subprocess.Popen([sys.executable, "-c", script, str(home)], cwd=ROOT)
        while publisher.poll() is None and sum(1 for _ in home.rglob("*")) < seen + 3:
            time.sleep(0.0005)
        publisher.send_signal(signal.SIGKILL)
        publisher.wait()
        for number in files(home, "r-1", "counts"):
            assert read(home, "r-1", "counts", number)["count"].to_pylist() == [i * number % 7 for i in range(3000)]
    for path in (home, tmp_path / "whole"):
        subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=True)
    assert tree(home) == tree(tmp_path / "whole") and os.listdir(home / ".staging") == []


def test_a_full_disk_at_publish_stops_clearly(small_disk: Path, rows: Rows) -> None:
    publish(small_disk, "r-1", "counts", 0, rows("counts"))
    before = tree(small_disk)
    n = 200_000
    noise = np.random.default_rng(0)
    uids = [bytes(row) for row in noise.integers(0, 256, (n, 16), np.uint8)]
    big = {"uid": uids, "g": noise.normal(size=n), "probed": [True] * n, "visits": [1] * n}
    with pytest.raises(DiskFull, match="Nothing partial was left"):
        publish(small_disk, "r-1", "metagradients", 0, pa.table(big))
    assert tree(small_disk) == before and os.listdir(small_disk / ".staging") == []
    assert uid_hex(read(small_disk, "r-1", "counts", 0)["uid"])


def test_every_column_of_every_table_is_explained() -> None:
    assert SHOWS.keys() == TABLES.keys()
    assert all(doc_of(field) for schema in TABLES.values() for field in schema)
