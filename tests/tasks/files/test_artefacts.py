"""Publishing: whole or not at all, whatever ends the writer."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.files.artefacts import (
    DiskFull,
    canonical_json,
    digest,
    file_digest,
    is_done,
    publish_bytes,
    publish_json,
    publishing,
    read_json,
    unit_name,
)
from tasks.files.scratch import scratch

ROOT = Path(__file__).parents[3]
Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(Json)
def test_canonical_json_depends_on_the_value_only(value: object) -> None:
    import json

    again = json.loads(canonical_json(value))
    assert again == value and canonical_json(again) == canonical_json(value)


def test_digest_of_equal_records_is_equal_and_of_bytes_is_theirs(tmp_path: Path) -> None:
    assert digest({"b": 1, "a": [1, 2]}) == digest({"a": (1, 2), "b": 1})
    assert digest(b"abc") != digest("abc") and len(digest(b"abc")) == 32
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file") == digest(b"abc")


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, Path("x")])
def test_canonical_json_refuses_what_json_has_not(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json([value])


def test_equal_records_give_equal_files(tmp_path: Path) -> None:
    publish_json(tmp_path / "deep" / "a.json", {"b": 1, "a": "ü"})
    publish_json(tmp_path / "deep" / "b.json", {"a": "ü", "b": 1})
    assert (tmp_path / "deep/a.json").read_bytes() == (tmp_path / "deep/b.json").read_bytes()
    assert read_json(tmp_path / "deep/a.json") == {"a": "ü", "b": 1}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"r\.json: not a file as mgd writes them"):
        read_json(tmp_path / "r.json")


def test_an_error_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    publish_bytes(tmp_path / "x", b"old")
    with pytest.raises(RuntimeError), publishing(tmp_path / "x") as file:
        file.write(b"new")
        raise RuntimeError
    assert (tmp_path / "x").read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


def test_a_full_disk_is_a_clear_stop_without_leftovers(small_disk: Path) -> None:
    publish_bytes(small_disk / "x", b"old")
    with pytest.raises(DiskFull) as caught:
        publish_bytes(small_disk / "x", os.urandom(3 << 20))
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert str(small_disk) in str(caught.value) and "same command again" in str(caught.value)
    assert (small_disk / "x").read_bytes() == b"old" and os.listdir(small_disk) == ["x"]


def test_a_disk_that_is_full_in_duckdbs_words_is_told_alike(small_disk: Path) -> None:
    publish_bytes(small_disk / "x", b"old")
    query = f"COPY (SELECT random() FROM range(1000000)) TO '{small_disk / 'y'}' (FORMAT parquet)"
    told = pytest.raises(DiskFull, match="same command again")
    with duckdb.connect() as connection, told as caught, publishing(small_disk / "x"):
        connection.execute(query)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG) and (small_disk / "x").read_bytes() == b"old"
    with pytest.raises(duckdb.Error, match="nowhere"), duckdb.connect() as connection, publishing(small_disk / "x"):
        connection.execute("FROM nowhere")


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_sweeps(tmp_path: Path) -> None:
    target = tmp_path / "x"
    publish_bytes(target, b"old")
    writer = _start_writer(target)
    assert target.read_bytes() == b"old" and len(os.listdir(tmp_path)) == 2
    publish_bytes(target, b"newer")  # beside a living writer: its temporary file stays
    assert target.read_bytes() == b"newer" and len(os.listdir(tmp_path)) == 2
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    publish_bytes(target, b"newest")
    assert target.read_bytes() == b"newest" and os.listdir(tmp_path) == ["x"]


def test_readers_never_see_a_mixture(tmp_path: Path) -> None:
    """A reader in a loop beside a writer that is killed again and again sees whole files only."""
    target = tmp_path / "x"
    sizes = (1 << 18, 1 << 19)
    publish_bytes(target, b"a" * sizes[0])
    script = (
        "import sys; from tasks.files.artefacts import publish_bytes\n"
        f"while True:\n  for c, n in zip(b'ab', {sizes}): publish_bytes(sys.argv[1], bytes([c]) * n)"
    )
    for pause in (0.25, 0.4):
        writer = subprocess.Popen([sys.executable, "-c", script, str(target)], cwd=ROOT)
        end = time.monotonic() + pause
        while time.monotonic() < end:
            assert target.read_bytes() in (b"a" * sizes[0], b"b" * sizes[1])
        writer.kill()
        writer.wait()
    assert target.read_bytes() in (b"a" * sizes[0], b"b" * sizes[1])


def _start_writer(target: Path) -> subprocess.Popen[str]:
    """A process that stops in the middle of a publish."""
    script = (
        "import sys, time; from tasks.files.artefacts import publishing\n"
        "with publishing(sys.argv[1]) as f:\n  f.write(b'half'); f.flush()\n"
        "  print('written', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(target)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "written\n"
    return writer


@pytest.mark.parametrize("damage", ["", "[]", "null", "3", '{"key"', "[" * 100_000, '{"key": [1]}', "\udcff"])
def test_a_unit_whose_record_is_damaged_is_not_done(damage: str, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_bytes(damage.encode("utf-8", "surrogateescape"))
    assert not is_done(record, "k")
    publish_json(record, {"key": "k"})
    assert is_done(record, "k") and not is_done(record, "other")


@given(st.text(), st.text())
def test_two_units_never_share_a_name(one: str, two: str) -> None:
    for name in (unit_name(one), unit_name(two)):
        assert name.replace("-", "").isalnum() and name.isascii() and len(name) < 60
    assert (unit_name(one) == unit_name(two)) == (one == two)


def test_names_that_differ_in_a_part_only_are_different_names() -> None:
    near = ["a/00000.tar", "b/00000.tar", "a-00000.tar", "a/00000-tar", "A/00000.tar", "x" * 90 + "/0.tar", "/0.tar"]
    assert len({unit_name(name) for name in near}) == len(near)


def test_a_sweep_between_making_and_locking_takes_no_scratch_from_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, swept = tempfile.mkdtemp, list[str]()

    def made_and_swept(**where: Any) -> str:
        made = make(**where)
        if len(swept) < 2:  # as another process' sweep may come in at this very instant
            swept.append(made)
            os.rmdir(made)
        return made

    monkeypatch.setattr("tasks.files.scratch.tempfile.mkdtemp", made_and_swept)
    with scratch(tmp_path, "test") as directory:
        (directory / "file").write_text("kept")
        with scratch(tmp_path, "other"):
            assert (directory / "file").read_text() == "kept"
    assert len(swept) == 2 and not list((tmp_path / ".staging").iterdir())
