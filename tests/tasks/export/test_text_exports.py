"""What comes out of a pool of texts is what went in: byte for byte where it was JSON, equal values where it was not."""

from __future__ import annotations

import bz2
import datetime as dt
import decimal
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.catalog.text_options import TextPoolOptions
from tasks.export.exports import export_jsonl
from tasks.pool.pools import build_pool
from tasks.pool.record import PoolRecord, load_pool
from tasks.subset.files import SubsetError
from testing.manifests import write_manifest

CHAT = b'{"messages" : [{"role":"user","content":"Hi \\u00e9"},{"role":"assistant","content":"H\xc3\xa9"}],"n":1.50}'
ALPACA = b'{"instruction": "Double", "input": 5, "output": "10", "tags": ["a", null], "more": {"x": []}}'
OWN = b'{"prompt": "mine", "Completion": [1], "instruction": "Say", "input": null, "output": "so", "s": 1e999}'


def pool_of(source: Path, **columns: Any) -> PoolRecord:
    options = TextPoolOptions(source=str(source), columns=columns or {}, max_rejects=0)
    return build_pool(options.sources, source.parent / "home", options.build_options())


def exported(pool: PoolRecord, out: Path, copies: int = 1) -> list[bytes]:
    uids = pq.read_table(pool.samples_path)["uid"]
    export_jsonl(write_manifest(out.parent, 0, uids, [copies] * len(uids), {}), pool, out)
    return out.read_bytes().splitlines(keepends=True)


ALPACA_COLUMNS = {"prompt": "instruction", "input": "input", "completion": "output"}


@pytest.mark.parametrize(
    ("line", "columns", "texts"),
    [
        (CHAT, {"messages": "messages"}, ("Hi é", "Hé")),
        (ALPACA, ALPACA_COLUMNS, ("Double\n\n5", "10")),
        (OWN, ALPACA_COLUMNS, ("Say", "so")),
        (b'{"uid": "7", "prompt": "a", "completion": "b"}', {}, ("a", "b")),
        (b'\xef\xbb\xbf{"prompt": "a", "completion": "b", "x": "\\ud800"}', {}, ("a", "b")),
    ],
)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.ndjson", bytes),
        ("named.so", gzip.compress),
        ("a.bz2", bz2.compress),
        ("a.xz", lzma.compress),
        ("a.zst", lambda data: pa.compress(data, codec="zstd", asbytes=True)),
    ],
)
def test_json_comes_back_byte_for_byte_as_often_as_its_count(
    tmp_path: Path, line: bytes, columns: dict[str, str], texts: tuple[str, str], name: str, form: Callable[..., bytes]
) -> None:
    (tmp_path / name).write_bytes(form(line + b"\r\n"))
    pool = pool_of(tmp_path / name, **columns)
    (row,) = pq.read_table(pool.samples_path).to_pylist()
    assert (row["prompt"], row["completion"]) == texts
    assert exported(pool, tmp_path / "out.jsonl", 3) == [line.removeprefix(b"\xef\xbb\xbf") + b"\n"] * 3


def test_own_columns_stand_beside_ours_under_a_stated_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(OWN)
    (row,) = pq.read_table(pool_of(tmp_path / "a.jsonl", **ALPACA_COLUMNS).samples_path).to_pylist()
    assert (row["prompt"], row["upstream_prompt"], row["upstream_Completion"]) == ("Say", "mine", "[1]")


def test_json_members_of_a_tar_come_back_as_one_line_each(tmp_path: Path) -> None:
    data = b'{\n "prompt": "a\\nb",\r\n "completion": "c"}\n'
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        header = tarfile.TarInfo("deep/er.json")
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))
    found = exported(pool_of(tmp_path / "a.tar"), tmp_path / "out.jsonl")
    assert found == [b'{  "prompt": "a\\nb",   "completion": "c"}\n']


def test_columns_of_any_type_come_as_plain_values_and_back(tmp_path: Path) -> None:
    utc = dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    columns: dict[str, Any] = {
        "prompt": pa.array(["a", "b"], pa.large_string()),
        "completion": pa.array(["x", "y"]).dictionary_encode(),
        "when": pa.array([utc.replace(tzinfo=None), None]),
        "utc": pa.array([utc, None], pa.timestamp("ms", "Europe/Berlin")),
        "nano": pa.array([1, 10**9], pa.timestamp("ns")),
        "day": pa.array([dt.date(2020, 1, 2), None]),
        "at": pa.array([dt.time(1, 2, 3), None]),
        "took": pa.array([dt.timedelta(seconds=-90), None]),
        "price": pa.array([decimal.Decimal("1.10"), None]),
        "exact": pa.array([decimal.Decimal("1.100000000000000000001"), None]),
        "score": pa.array([float("nan"), 0.5]),
        "half": pa.array([1.5, float("inf")], pa.float16()),
        "large": pa.array([2**64 - 1, 0], pa.uint64()),
        "nested": pa.array([{"days": [dt.date(2020, 1, 2)], "data": b"x", "f": float("nan")}, None]),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
        "bytes": pa.array([b"x", b"y"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    pool = pool_of(tmp_path / "a.parquet")
    assert pool.samples == 2 and not pool.rejects
    assert pool.notes == ("left out, since bytes are no text: nested.data (binary), bytes (binary) (in 1 of 1 files)",)
    rows = {row["prompt"]: row for row in map(json.loads, exported(pool, tmp_path / "out.jsonl"))}
    assert rows["a"] == {
        "prompt": "a",
        "completion": "x",
        "when": "2020-01-02T03:04:05",
        "utc": "2020-01-02T03:04:05+00:00",
        "nano": "1970-01-01T00:00:00.000000001",
        "day": "2020-01-02",
        "at": "01:02:03",
        "took": "-PT90S",
        "price": 1.1,
        "exact": "1.100000000000000000001",
        "score": None,
        "half": 1.5,
        "large": 2**64 - 1,
        "nested": {"days": ["2020-01-02"], "f": None},
        "map": {"k": 1},
    }
    given = {"prompt": "b", "completion": "y", "nano": "1970-01-01T00:00:01", "score": 0.5, "large": 0}
    assert rows["b"] == dict.fromkeys(rows["a"]) | given


def test_a_file_that_changed_or_went_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "a", "completion": "yes"}\n{"prompt": "b", "completion": "yes"}\n')
    pool = pool_of(path)
    path.write_bytes(b'{"prompt": "a", "completion": "yes"}\n{"prompt": "c", "completion": "yes"}\n')
    with pytest.raises(SubsetError, match=r"a\.jsonl: 1 of the 2 samples wanted of it are not there any more"):
        exported(pool, tmp_path / "out.jsonl")
    path.unlink()
    with pytest.raises(SubsetError, match=r"a\.jsonl: cannot be read \(No such file"):
        exported(pool, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_records_of_earlier_pools_say_what_they_are_of_by_their_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "a", "completion": "b"}')
    pool = pool_of(tmp_path / "a.jsonl")
    assert pool.kind == pool.samples_kind == "texts"
    told = json.loads((pool.directory / "pool.json").read_bytes())
    for name in ("kind", "columns", "notes"):
        del told[name]
    (pool.directory / "pool.json").write_text(json.dumps(told))
    old = load_pool(pool.directory)
    assert old is not None and old.kind is None and old.samples_kind == "texts"
    assert exported(old, tmp_path / "out.jsonl") == [b'{"prompt": "a", "completion": "b"}\n']
