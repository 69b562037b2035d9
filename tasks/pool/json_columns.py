"""Upstream columns: what a pool's json members say besides the uid, as typed columns of the samples table.

JSON has no schema, so a column's type is read off all of its values: bool, int64, double (whole and broken numbers
mixed), string; lists, objects, mixtures and whole numbers that would be rounded become their JSON text. A name that the
samples table uses itself, or another key has, in any case, gets `upstream_` in front, and the column's sentence says
so. Everything is kept; nothing is interpreted.

Cost: the json texts of the table in memory, each parsed twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from tasks.files.artefacts import canonical_json
from tasks.tables.schemas import PARTITIONS, SAMPLES, upstream_field
from tasks.tables.sql_names import distinct_names
from tasks.tables.uids import uid_array

RESERVED = {*SAMPLES.names, *PARTITIONS}
# What a pool of texts calls its two parts, whatever else its records hold.
FIRST = ("prompt", "completion")
INT64 = range(-(1 << 63), 1 << 63)
EXACT = range(-(1 << 53), (1 << 53) + 1)
"""Whole numbers that a double holds exactly."""
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


class Kinds:
    """What values each name of the json objects was seen with, in all of a pool's samples: the columns' types."""

    def __init__(self) -> None:
        self._seen: dict[str, set[type]] = {}
        self._too_large: set[str] = set()
        self._inexact: set[str] = set()

    def see(self, parts: pa.Table) -> None:
        """Take note of the json texts of a table of schema PART."""
        for text in parts["upstream"].to_pylist():
            for name, value in json.loads(text).items():
                seen = self._seen.setdefault(name, set())
                if value is not None:
                    seen.add(type(value))
                    if type(value) is int and value not in EXACT:
                        self._inexact.add(name)
                        if value not in INT64:
                            self._too_large.add(name)

    @property
    def names(self) -> list[str]:
        """Every name that was seen, sorted."""
        return sorted(self._seen)

    def column(self, name: str, values: list[Any]) -> pa.Array:
        """Values of a name as a column of its type."""
        kinds = self._seen[name]
        if kinds <= {str}:
            return pa.array(values, pa.string())
        if kinds == {bool}:
            return pa.array(values, pa.bool_())
        if kinds == {int} and name not in self._too_large:
            return pa.array(values, pa.int64())
        if kinds <= {int, float} and float in kinds and name not in self._inexact:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        return pa.array([None if value is None else canonical_json(value).decode() for value in values], pa.string())


def spread(parts: pa.Table, kinds: Kinds | None = None) -> pa.Table:
    """A table of schema PART with its json text spread over typed columns, sorted by name.

    `kinds` are those of the whole pool, where `parts` is but a part of it.
    """
    if kinds is None:
        kinds = Kinds()
        kinds.see(parts)
    records = [json.loads(text) for text in parts["upstream"].to_pylist()]
    result = parts.drop_columns(["upstream"])
    called = distinct_names(kinds.names, RESERVED, FIRST)
    for name in kinds.names:
        column = kinds.column(name, [record.get(name) for record in records])
        result = result.append_column(upstream_field(called[name], column.type, name), column)
    return result


def _value(row: dict[str, Any], name: str) -> Any:
    return canonical_json(row[name]).decode() if name == "upstream" else row[name]
