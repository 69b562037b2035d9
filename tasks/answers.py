"""Answers: the rows of a query as a table for the eye, as CSV, or as JSON.

uids are written as 32 hex digits, as every other tool writes them, not as DuckDB's dashed UUIDs. A table
shows the first rows and says how many there are beyond; CSV and JSON give every row, as it comes, in constant
memory.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO
from uuid import UUID

import duckdb

from tasks.queries import QueryError, connect

Format = Literal["table", "csv", "json"]
SHOWN_ROWS = 50
# Letters of a cell that are shown; the last column has the rest of the line to itself.
WIDEST, WIDEST_LAST = 60, 200
FETCH = 1024


def run_sql(
    home: str | Path,
    query: str,
    run: str | None,
    out: TextIO,
    format: Format = "table",
    limit: int | None = None,
) -> int:
    """Write the answer to `query` on `out` and return its number of rows.

    `limit`: most rows written (default: 50 of a table, all of CSV and JSON). Raises QueryError, with DuckDB's
    own words.
    """
    with connect(home, run) as connection:
        return answer(connection, query, out, format, limit)


def answer(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    out: TextIO,
    format: Format = "table",
    limit: int | None = None,
) -> int:
    """As `run_sql`, on a connection that is open; the result is read to its end, so that the connection can
    be used again."""
    writers = {"table": _write_table, "csv": _write_csv, "json": _write_json}
    try:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description or []]
        return writers[format](names, _rows(cursor), out, limit)
    except duckdb.Error as error:
        raise QueryError(_plain(error)) from error


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(FETCH):
        yield from rows


def _write_table(names: list[str], rows: Iterator[Sequence[Any]], out: TextIO, limit: int | None) -> int:
    shown = list(islice(rows, SHOWN_ROWS if limit is None else limit))
    beyond = sum(1 for _ in rows)
    numeric = [all(row[i] is None or _is_number(row[i]) for row in shown) for i in range(len(names))]
    cuts = [WIDEST] * (len(names) - 1) + [WIDEST_LAST]
    cells = [[_short(value, cut) for value, cut in zip(row, cuts, strict=True)] for row in shown]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for line in [names, ["-" * width for width in widths], *cells]:
        padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True)]
        out.write("  ".join(padded).rstrip() + "\n")
    total = len(shown) + beyond
    out.write(f"({total:,} row{'' if total == 1 else 's'}{f', first {len(shown)} shown' if beyond else ''})\n")
    return total


def _write_csv(names: list[str], rows: Iterator[Sequence[Any]], out: TextIO, limit: int | None) -> int:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    total = 0
    for row in rows:
        if limit is None or total < limit:
            writer.writerow([_csv_cell(value) for value in row])
            total += 1
    return total


def _write_json(names: list[str], rows: Iterator[Sequence[Any]], out: TextIO, limit: int | None) -> int:
    """One array of objects, an object a line."""
    total = 0
    for row in rows:
        if limit is None or total < limit:
            out.write(",\n" if total else "[\n")
            values = [_jsonable(value) for value in row]
            json.dump(dict(zip(names, values, strict=True)), out, ensure_ascii=False)
            total += 1
    out.write("\n]\n" if total else "[]\n")
    return total


def _jsonable(value: Any) -> Any:
    """A value as JSON has it: uids as hex, what is not finite as null, other types as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, dict):
        return {str(_jsonable(key)): _jsonable(one) for key, one in value.items()}
    return str(value)


def _csv_cell(value: Any) -> Any:
    plain = _jsonable(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict) else plain


def _short(value: Any, cut: int = WIDEST) -> str:
    """A value for the eye: six digits of a number, one line of at most `cut` letters of anything."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        text = "[" + ", ".join(map(_short, value)) + "]"
    elif isinstance(value, dict):
        text = ", ".join(f"{_short(key)} {_short(one)}" for key, one in value.items())
    else:
        text = " ".join(str(_jsonable(value)).split())
    return text if len(text) <= cut else text[: cut - 1] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(error: duckdb.Error) -> str:
    """DuckDB's message with a way on."""
    return f"{str(error).strip()}\n(what there is: SELECT * FROM views; what it means: SELECT * FROM columns)"
