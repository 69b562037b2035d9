"""Upstream columns: what a pool's json members say besides the uid, as typed columns of the samples table.

JSON has no schema, so a column's type is read off all of its values: bool, int64, double (whole and broken
numbers mixed), string; lists, objects and mixtures become their JSON text. A name that the samples table uses
itself, in any case, gets `upstream_` in front. Everything is kept; nothing is interpreted.

Cost: the json texts of the whole pool in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from tasks.artefacts import canonical_json
from tasks.schemas import PARTITIONS, SAMPLES, upstream_field
from tasks.uids import uid_array

RESERVED = {*SAMPLES.names, *PARTITIONS}
INT64 = range(-(1 << 63), 1 << 63)
# A part of a pool before all its columns are known: the samples table's own columns and the json object's
# text.
PART = SAMPLES.append(pa.field("upstream", pa.string()))


def part_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows of `index_shard` as a table of schema PART, in their order."""
    listed = list(rows)
    columns = [
        uid_array([row["uid"] for row in listed])
        if field.name == "uid"
        else pa.array([_value(row, field.name) for row in listed], field.type)
        for field in PART
    ]
    return pa.table(columns, schema=PART)


def spread(parts: pa.Table) -> pa.Table:
    """A table of schema PART with its json text spread over typed columns, sorted by name."""
    records = [json.loads(text) for text in parts["upstream"].to_pylist()]
    result = parts.drop_columns(["upstream"])
    taken = {name.lower() for name in RESERVED}
    for name in sorted({name for record in records for name in record}):
        column = _typed([record.get(name) for record in records])
        free = _free_name(name, taken)
        result = result.append_column(upstream_field(free, column.type), column)
    return result


def _typed(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {str}:
        return pa.array(values, pa.string())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or value in INT64 for value in values):
        return pa.array(values, pa.int64())
    if kinds <= {int, float} and float in kinds:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else canonical_json(value).decode() for value in values], pa.string())


def _free_name(name: str, taken: set[str]) -> str:
    # SQL does not tell Text from text.
    while name.lower() in taken or not name:
        name = f"upstream_{name}"
    taken.add(name.lower())
    return name


def _value(row: dict[str, Any], name: str) -> Any:
    return canonical_json(row[name]).decode() if name == "upstream" else row[name]
