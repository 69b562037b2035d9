"""Pools of texts: what a record may hold, what is no JSON lines, what comes back out."""

from __future__ import annotations

import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

from testing.field_case import Place, case, told, works
from testing.field_cases.pools import chosen

ALPACA = [{"instruction": f"add {i}", "input": i, "output": f"{i + 1}", "prompt": "mine"} for i in range(5)]


def choose(pool: str) -> list[str]:
    """Index a pool of texts and write all of it."""
    return ["subset", "no_filter", "--pool", pool, "--out", "all.npy"]


@case("I", works(also=chosen(4)))
def columns_of_every_type(p: Place) -> list[str]:
    n = 4
    table = pa.table(
        {
            "prompt": [f"say {i}" for i in range(n)],
            "completion": [str(i) for i in range(n)],
            "when": pa.array([datetime.datetime(2026, 1, 1)] * n, pa.timestamp("us", "UTC")),
            "raw": [b"\x00\xff"] * n,
            "price": pa.array([None] * n, pa.decimal128(10, 2)),
            "score": [float("nan")] * n,
        }
    )
    (p.directory / "texts").mkdir()
    pq.write_table(table, "texts/a.parquet")
    return choose("texts")


@case("AG", told(r"array|JSON lines|list"), works(also=chosen(5)))
def a_json_array_for_json_lines(p: Place) -> list[str]:
    p.file("texts/a.jsonl", json.dumps(ALPACA, indent=1))
    return choose("texts/a.jsonl")


@case("AG", told(r"CSV|JSON"))
def a_csv_for_json_lines(p: Place) -> list[str]:
    p.file("texts/a.jsonl", "prompt,completion\n1,2\n3,4\n")
    return choose("texts/a.jsonl")


@case("AG", told(r"gzip|compress|packed"), works(also=chosen(5)))
def packed_json_lines_by_a_plain_name(p: Place) -> list[str]:
    lines = "".join(json.dumps({"prompt": f"{i}", "completion": "x"}) + "\n" for i in range(5))
    p.file("texts/a.jsonl", gzip.compress(lines.encode()))
    return choose("texts/a.jsonl")


@case("H", told(r"a\.ndjson"), works(also=chosen(3)))
def other_names_for_json_lines(p: Place) -> list[str]:
    p.file("texts/a.ndjson", "".join(json.dumps({"prompt": f"{i}", "completion": "x"}) + "\n" for i in range(3)))
    return choose("texts")


@case("H", told(r"b\.jsonl\.zst"), works(r"b\.jsonl\.zst"))
def packed_json_lines_beside(p: Place) -> list[str]:
    p.file("texts/a.jsonl", "".join(json.dumps({"prompt": f"{i}", "completion": "x"}) + "\n" for i in range(3)))
    p.file("texts/b.jsonl.zst", b"(\xb5/\xfd")
    return choose("texts")


@case("I", told(r"'prompt' is a int, not a text"))
def prompts_that_are_numbers(p: Place) -> list[str]:
    p.file("texts/a.jsonl", "".join(json.dumps({"prompt": i, "completion": "x"}) + "\n" for i in range(3)))
    return choose("texts")


@case("A", told(r"more than one column is called prompt"))
def two_columns_of_one_name(p: Place) -> list[str]:
    columns = [pa.array(["a", "b"]), pa.array(["c", "d"]), pa.array(["e", "f"])]
    (p.directory / "texts").mkdir()
    pq.write_table(pa.Table.from_arrays(columns, ["prompt", "completion", "prompt"]), "texts/a.parquet")
    return choose("texts")
