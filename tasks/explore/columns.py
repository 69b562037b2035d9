"""Columns that samples are charted, brushed and ordered by, and how each is asked in plain SQL.

Those of `sample_outcomes` come first, then the length of the caption, then count and g of every round. A key says which
of these a column is (`o:`, `x:`, `count:`, `g:`), so that no name of a pool's is mistaken for one of ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from tasks.tables.sql_names import literal, quoted

OUTCOMES = "sample_outcomes"
WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
FRACTIONS = {"FLOAT", "DOUBLE", "DECIMAL"}
WORDS = {"VARCHAR", "BOOLEAN"}
PLACES = {"image_offset", "text_offset", "json_offset", "chosen_round"}
"""Numbers that are no measure: where bytes lie, and what is the same of all."""
FIRST = ("g_sum", "count", "g_sum_later")

Kind = Literal["number", "words", "other"]


@dataclass(frozen=True)
class Column:
    """What is known of each sample: where it is asked (`table`, `value`, `condition`), and what it means."""

    key: str
    label: str
    kind: Kind
    type: str
    doc: str
    table: str
    value: str
    condition: str = ""
    is_measure: bool = True

    @property
    def number(self) -> str:
        """The value as a DOUBLE: null where there is none, or none that is finite."""
        return f"CASE WHEN isfinite(({self.value})::DOUBLE) THEN ({self.value})::DOUBLE END"

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole."""
        return self.type in WHOLE

    @property
    def from_where(self) -> str:
        """The FROM clause, and what its rows are held to."""
        return f"FROM {self.table}" + (f" WHERE {self.condition}" if self.condition else "")

    def within(self, low: float | None, high: float | None, none: bool) -> str:
        """The WHERE that holds of values from `low` on and below `high`, or, with `none`, of samples without one."""
        if none:
            return self._asked(f"({self.number}) IS NOT NULL", negated=True)
        value = self.value if self.type in WHOLE | {"DOUBLE"} else f"({self.value})::DOUBLE"
        bounds = [f"{value} >= {number(low)}"] if low is not None else []
        bounds += [f"{value} < {number(high)}"] if high is not None else []
        if self.type not in WHOLE and (low is None or high is None):
            bounds.append(f"isfinite(({self.value})::DOUBLE)")
        return self._asked(" AND ".join(bounds) or f"{value} IS NOT NULL")

    def among(self, values: list[str], none: bool) -> str:
        """The WHERE that holds of these words, and, with `none`, of samples without one."""
        value = self.value if self.type == "VARCHAR" else f"({self.value})::VARCHAR"
        parts = [f"{value} IN ({', '.join(map(literal, values))})"] if values else []
        parts += [f"{value} IS NULL"] if none else []
        return f"({' OR '.join(parts)})" if parts else "false"

    def _asked(self, holds: str, negated: bool = False) -> str:
        """A condition on the value as one on `sample_outcomes`."""
        if self.table == OUTCOMES:
            return f"NOT ({holds})" if negated else holds
        among = f"SELECT uid FROM {self.table} WHERE {self.condition} AND {holds}"
        return f"uid {'NOT ' * negated}IN ({among})"


def columns_of(connection: duckdb.DuckDBPyConnection) -> list[Column]:
    """All columns of a run, those that tell most first."""
    told = connection.execute(
        "SELECT column_name, type, doc FROM columns WHERE table_name = ? AND column_name NOT IN ('run', 'uid')",
        [OUTCOMES],
    ).fetchall()
    found = [_outcome(name, kind, doc) for name, kind, doc in told]
    found.sort(key=lambda one: FIRST.index(one.label) if one.label in FIRST else len(FIRST))
    length = "Characters of the caption."
    found.append(Column("x:length", "caption length", "number", "BIGINT", length, OUTCOMES, "length(text)"))
    for table, value, extra in (("metagradients", "g", " AND probed"), ("counts", "count", "")):
        for (round,) in connection.execute(f"SELECT DISTINCT round FROM {table} ORDER BY round").fetchall():
            found.append(_of_round(connection, table, value, round, extra))
    return found


def number(value: float) -> str:
    """A number as SQL's, to the last bit: a DECIMAL of up to 15 digits becomes the DOUBLE that Python reads, a longer
    one is written as a DOUBLE."""
    text = repr(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else repr(value)
    plain = len(text.lstrip("-").replace(".", "").lstrip("0")) <= 15 and len(text) <= 18
    return text if "e" in text or plain else f"{text}e0"


def _outcome(name: str, kind: str, doc: str) -> Column:
    base = kind.partition("(")[0]
    found: Kind = "number" if base in WHOLE | FRACTIONS else "words" if base in WORDS else "other"
    return Column(f"o:{name}", name, found, base, doc, OUTCOMES, quoted(name), is_measure=name not in PLACES)


def _of_round(connection: duckdb.DuckDBPyConnection, table: str, value: str, round: int, extra: str) -> Column:
    asked = "SELECT type, doc FROM columns WHERE table_name = ? AND column_name = ?"
    found: list[tuple[Any, ...]] = connection.execute(asked, [table, value]).fetchall()
    kind, doc = found[0]
    where = f"round = {round}{extra}"
    return Column(f"{value}:{round}", f"{value}, round {round}", "number", kind, doc, table, quoted(value), where)
