"""Pools of texts: every form of file, columns by any name, and bad records as counted rejects."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.catalog.pair_catalog import PoolOptions
from tasks.catalog.text_options import TextPoolOptions
from tasks.files.progress import watch
from tasks.files.source_patterns import SourceError
from tasks.pool.forms import PairForm
from tasks.pool.pools import build_pool
from tasks.pool.record import TooManyRejects
from tasks.pool.text_records import TextColumns

ROWS = [{"prompt": f"What is {n}?", "completion": f"It is {n}.", "task": "naming", "level": n} for n in range(6)]


def write(path: Path, rows: list[Any]) -> Path:
    """Rows in the form that the file's name says."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.name.endswith(".tar"):
        with tarfile.open(path, "w") as tar:
            for number, row in enumerate(rows):
                data = json.dumps(row).encode()
                header = tarfile.TarInfo(f"{number:03d}.json")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    else:
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def built(source: object, home: Path, **options: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Samples and rejects of a pool."""
    made = TextPoolOptions(source=str(source), **{"max_rejects": 1.0, **options})
    record = build_pool(made.sources, home, made.build_options())
    return pq.read_table(record.samples_path).to_pylist(), pq.read_table(record.rejects_path).to_pylist()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.tar"])
def test_all_forms_give_the_same_samples(tmp_path: Path, name: str) -> None:
    samples, rejects = built(write(tmp_path / name, ROWS), tmp_path / "home")
    found = sorted((row["prompt"], row["completion"], row["task"], row["level"]) for row in samples)
    assert found == sorted(tuple(row.values()) for row in ROWS) and not rejects
    assert all(row["text"] == f"{row['prompt']}\n{row['completion']}" for row in samples)
    assert all(row["image_size"] is None and row["shard"] == name for row in samples)
    uids = [row["uid"] for row in samples]
    assert uids == sorted(uids) and len(set(uids)) == 6


def test_a_directory_and_a_list_are_pools_of_all_their_files(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS[:2])
    write(tmp_path / "b.parquet", ROWS[2:4])
    assert len(built(tmp_path, tmp_path / "home")[0]) == 4
    with pytest.raises(SourceError, match="no text at"):
        built(tmp_path / "nothing", tmp_path / "home")


def test_columns_have_any_name(tmp_path: Path) -> None:
    alpaca = write(tmp_path / "a.jsonl", [{"instruction": "Add", "input": "1, 2", "output": "3"}])
    columns = {"prompt": "instruction", "input": "input", "completion": "output"}
    (row,), _ = built(alpaca, tmp_path / "home", columns=columns)
    assert (row["prompt"], row["completion"]) == ("Add\n\n1, 2", "3")
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Farewell")]
    chat = [{"role": role, "content": content} for role, content in turns]
    path = write(tmp_path / "b.jsonl", [{"messages": chat}, {"messages": chat[:2]}, {"messages": chat[:3]}])
    rows, rejects = built(path, tmp_path / "home", columns={"messages": "messages"})
    assert {(row["prompt"], row["completion"]) for row in rows} == {
        ("Hi", "Hello"),
        ("<|user|>\nHi\n<|assistant|>\nHello\n<|user|>\nBye", "Farewell"),
    }
    assert "of 'user', not of the assistant" in rejects[0]["detail"]


def test_bad_records_are_rejected_with_a_reason(tmp_path: Path) -> None:
    good = ROWS[0]
    lines = [
        json.dumps(good),
        json.dumps(good),
        "{broken",
        "[1, 2]",
        json.dumps({"prompt": "no completion"}),
        json.dumps({**good, "completion": "  "}),
        json.dumps({**good, "completion": "a\0b"}),
        json.dumps({**good, "completion": 3}),
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"prompt": "\xff", "completion": "x"}\n')
    samples, rejects = built(path, tmp_path / "home")
    assert len(samples) == 1
    assert [(row["member"], row["reason"]) for row in rejects] == [
        ("3", "bad_json"),
        ("4", "bad_json"),
        ("5", "missing_text"),
        ("6", "empty_text"),
        ("7", "bad_text"),
        ("8", "missing_text"),
        ("9", "bad_json"),
        ("2", "duplicate_uid"),
    ]
    with pytest.raises(TooManyRejects, match="8 of 9 rejected"):
        built(path, tmp_path / "home", max_rejects=3)


def test_damaged_files_are_counted_and_never_read_in_silence(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.jsonl.gz", ROWS * 200).read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TooManyRejects, match="1 of 1 files damaged"):
        built(tmp_path / "a.jsonl.gz", tmp_path / "home")
    samples, rejects = built(tmp_path / "a.jsonl.gz", tmp_path / "home", max_damaged_shards=1)
    assert samples and [row["reason"] for row in rejects if row["reason"] != "duplicate_uid"] == ["corrupt_file"]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(TooManyRejects, match="corrupt_file"):
        built(tmp_path / "b.parquet", tmp_path / "home")
    (tmp_path / "c.jsonl").write_bytes(b"\n")
    with pytest.raises(ValueError, match="empty_file"):
        built(tmp_path / "c.jsonl", tmp_path / "home")


def test_pools_of_pairs_are_as_they_were() -> None:
    assert PoolOptions(source="x").build_options().form == PairForm()
    assert TextPoolOptions(source="x").build_options().form == TextColumns()


GOOD = b'{"prompt": "a", "completion": "b"}'
ARRAY = b'[{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (ARRAY, "one JSON array"),
        (json.dumps(json.loads(ARRAY), indent=2).encode(), "one JSON array"),
        (b"\xef\xbb\xbf" + ARRAY.replace(b", {", b",\n{"), "one JSON array"),
        (json.dumps(json.loads(GOOD), indent=2).encode(), "JSON over many lines"),
        (b"prompt,completion\na,b\n", r"lines of comma-separated values \(CSV\)"),
        (b"prompt\tcompletion\na\tb\n", "tab-separated"),
        (b"<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>", "a page of HTML or XML"),
        (GOOD.decode().encode("utf-16"), "text in UTF-16; JSON lines are UTF-8"),
        (GOOD.decode().encode("utf-16-le"), "text in UTF-16"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"just some words\nand more\n", "other text: it begins with 'just some words'"),
        (bytes(100), "nothing but zeros"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_a_file_that_is_something_else_says_what_it_is(tmp_path: Path, data: bytes, told: str, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(TooManyRejects, match=f"1 of 1 files damaged.*wrong_form not JSON lines but.*{told}"):
        built(tmp_path / name, tmp_path / "home")


def test_line_ends_of_windows_a_bom_and_empty_lines_are_lines_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf\r\n" + GOOD + b"\r\n\r\n" + GOOD.replace(b"a", b"c"))
    assert len(built(tmp_path / "a.jsonl", tmp_path / "home")[0]) == 2


def test_what_json_does_not_have_loses_no_sample(tmp_path: Path) -> None:
    line = b'{"prompt": "a", "completion": "b", "x": 1e999, "y": "\\ud800", "z": NaN}'
    (tmp_path / "a.jsonl").write_bytes(line)
    samples, rejects = built(tmp_path / "a.jsonl", tmp_path / "home")
    assert not rejects and (samples[0]["x"], samples[0]["y"], samples[0]["z"]) == (None, "\ufffd", None)


def test_files_that_are_passed_over_are_counted_and_named(tmp_path: Path) -> None:
    told: list[str] = []
    for name in ("b.json", "c.ndjson", "d.jsonl.zst", "E.JSONL"):
        (tmp_path / name).write_bytes(GOOD)
    (tmp_path / "README.md").write_text("words")
    with pytest.raises(SourceError, match=r"no text at .*4 files are passed over.*E\.JSONL, .*b\.json, .*c\.ndjson"):
        built(tmp_path, tmp_path / "home")
    write(tmp_path / "a.jsonl", ROWS)
    watch(lambda sentence, *_: told.append(sentence))
    try:
        assert len(built(tmp_path, tmp_path / "home")[0]) == len(ROWS)
        assert any("4 files are passed over" in one and one.endswith("d.jsonl.zst") for one in told)
        told.clear()
        built(tmp_path / "*.jsonl", tmp_path / "home")
        assert not [one for one in told if "passed over" in one], "a pattern passes nothing over that it names"
    finally:
        watch(None)
