"""Answers: the rows of a query as a table for the eye, as CSV, or as JSON.

uids are written as 32 hex digits, as every other tool writes them, not as DuckDB's dashed UUIDs; bytes as hex. Times
and spans, which Python holds to a part only, are written as DuckDB writes them. CSV and JSON take one question, and
columns of one name get numbers in them; what is not finite is `nan` or `inf` in CSV and null in JSON, which has no
word for it. A table shows the first rows and says how many there are beyond; on a terminal that is too narrow for its
columns it goes on below, under its first column again. CSV and JSON give every row, as it comes, in constant memory.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from decimal import Decimal
from itertools import count, islice
from pathlib import Path
from threading import Event
from typing import Any, Literal, TextIO
from uuid import UUID

import duckdb
from duckdb.sqltypes import DuckDBPyType

from tasks.files.plurals import harmless
from tasks.tables.queries import QueryError, connect, left_out
from tasks.tables.sql_locks import check_statement
from tasks.tables.sql_names import quoted

Format = Literal["table", "csv", "json"]
SHOWN_ROWS = 50
# Letters of a cell that are shown; the last column has the rest of the line to itself.
WIDEST, WIDEST_LAST = 60, 200
FETCH = 1024
NESTED = {"list", "array", "struct", "map"}
# Types whose every value Python, or what it is written as, holds.
HELD = {
    *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint"),
    *("uhugeint", "float", "double", "decimal", "varchar", "blob", "uuid", "enum", "null"),
}


def run_sql(
    home: str | Path,
    query: str,
    run: str | None,
    out: TextIO,
    format: Format = "table",
    limit: int | None = None,
    allow_files: bool = False,
) -> int:
    """Write the answer to `query` on `out` and return its number of rows; on stderr, which runs are left out.

    `limit`: most rows written (default: 50 of a table, all of CSV and JSON). Raises QueryError, with DuckDB's
    own words, and Forbidden where the query would reach a file and not `allow_files`.
    """
    with connect(home, run, allow_files) as connection:
        for line in left_out(connection):
            print(f"mgd: {harmless(line)}", file=sys.stderr)
        return answer(connection, query, out, format, limit)


def answer(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    out: TextIO,
    format: Format = "table",
    limit: int | None = None,
) -> int:
    """As `run_sql`, on a connection that is open; the result is read to its end, so that the connection can
    be used again. Ctrl-C ends the query, and is raised."""
    stop = Event()
    # In a thread of its own, since DuckDB does not always look for signals on the way.
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_answer, connection, query, out, format, limit, stop)
        try:
            return asked.result()
        except KeyboardInterrupt:
            stop.set()
            while wait([asked], timeout=0.1).not_done:
                connection.interrupt()
            raise


def _answer(
    connection: duckdb.DuckDBPyConnection, query: str, out: TextIO, format: Format, limit: int | None, stop: Event
) -> int:
    """See `answer`; writes no more rows once `stop` is set."""
    writers = {"table": _write_table, "csv": _write_csv, "json": _write_json}
    if limit is not None and limit < 0:
        raise QueryError(f"limit {limit}: the most rows to show are 0 or more")
    try:
        query.encode()
        statements = connection.extract_statements(query)
        if not statements:
            raise QueryError("there is no question: the query is empty, or only a comment. For instance: FROM views")
        asking = [one for one in statements if duckdb.ExpectedResultType.QUERY_RESULT in one.expected_result_type]
        if format != "table" and len(asking) > 1:
            raise QueryError(f"{len(asking)} questions in one query: {format} takes one at a time")
        for statement in statements:
            check_statement(connection, statement)
        total = 0
        for statement in statements:
            cursor = _asked(connection, statement)
            names = [column[0] for column in cursor.description or []]
            if statement in asking or len(statements) == 1:
                total = writers[format](names, _rows(cursor, stop), out, limit)
        return total
    except duckdb.Error as error:
        raise QueryError(_plain(error)) from error
    except UnicodeError as error:
        raise QueryError(f"the query is no text: {error}") from error


def _asked(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement) -> duckdb.DuckDBPyConnection:
    """Run a statement; columns that Python cannot hold in full come as text."""
    relation = connection.sql(statement) if statement.type == duckdb.StatementType.SELECT else None
    kinds = [] if relation is None else [_held(kind) for kind in relation.types]
    if relation is None or not any(kinds):
        return connection.execute(statement)
    places = [f"c{place}" for place in range(len(kinds))]
    told = [
        f"{place}::{kind} AS {quoted(name)}" if kind else f"{place} AS {quoted(name)}"
        for place, kind, name in zip(places, kinds, relation.columns, strict=True)
    ]
    asked = _without_end(statement.query)
    return connection.execute(f"SELECT {', '.join(told)} FROM (\n{asked}\n) AS answer({', '.join(places)})")


def _without_end(query: str) -> str:
    """A statement without the ';' that ends it, and the comments behind that."""
    text = query.encode()
    last = max(place for place, kind in duckdb.tokenize(query) if kind != duckdb.token_type.comment)
    return text[:last].decode() if text[last : last + 1] == b";" else query


def _held(kind: DuckDBPyType) -> str:
    """The type to cast to before Python gets a value; empty where it can hold what there is."""
    if kind.id in NESTED:
        parts = {name: _held(of) or str(of) for name, of in kind.children if isinstance(of, DuckDBPyType)}
        if not any(_held(of) for _, of in kind.children if isinstance(of, DuckDBPyType)):
            return ""
        if kind.id == "struct":
            return f"STRUCT({', '.join(f'{quoted(name)} {part}' for name, part in parts.items())})"
        return f"MAP({parts['key']}, {parts['value']})" if kind.id == "map" else f"{parts['child']}[]"
    return "" if kind.id in HELD else "VARCHAR"


def _rows(cursor: duckdb.DuckDBPyConnection, stop: Event) -> Iterator[Sequence[Any]]:
    while not stop.is_set() and (rows := cursor.fetchmany(FETCH)):
        yield from rows


def _write_table(names: list[str], rows: Iterator[Sequence[Any]], out: TextIO, limit: int | None) -> int:
    shown = list(islice(rows, SHOWN_ROWS if limit is None else limit))
    beyond = sum(1 for _ in rows)
    numeric = [all(row[i] is None or _is_number(row[i]) for row in shown) for i in range(len(names))]
    space = shutil.get_terminal_size().columns if out.isatty() else sys.maxsize
    cuts = [min(cut, space) for cut in [WIDEST] * (len(names) - 1) + [WIDEST_LAST]]
    names = [_short(name, cut) for name, cut in zip(names, cuts, strict=True)]
    cells = [[_short(value, cut) for value, cut in zip(row, cuts, strict=True)] for row in shown]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for columns in _folded(widths, space):
        for line in [names, ["-" * width for width in widths], *cells]:
            padded = [line[i].rjust(widths[i]) if numeric[i] else line[i].ljust(widths[i]) for i in columns]
            out.write("  ".join(padded).rstrip() + "\n")
    total = len(shown) + beyond
    out.write(f"({total:,} row{'' if total == 1 else 's'}{f', first {len(shown)} shown' if beyond else ''})\n")
    return total


def _folded(widths: Sequence[int], space: int) -> list[list[int]]:
    """Columns that stand beside each other in so many letters; where there are several such parts, each begins with the
    first column, if there is room for it."""
    parts: list[list[int]] = [[]]
    for column, width in enumerate(widths):
        if parts[-1] and sum(widths[i] + 2 for i in parts[-1]) + width > space:
            parts.append([0] if widths[0] + 2 + width <= space else [])
        parts[-1].append(column)
    return parts


def _write_csv(names: list[str], rows: Iterator[Sequence[Any]], out: TextIO, limit: int | None) -> int:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_distinct(names))
    total = 0
    for row in rows:
        if limit is None or total < limit:
            writer.writerow([_csv_cell(value) for value in row])
            total += 1
    return total


def _write_json(names: list[str], rows: Iterator[Sequence[Any]], out: TextIO, limit: int | None) -> int:
    """One array of objects, an object a line."""
    total, names = 0, _distinct(names)
    for row in rows:
        if limit is None or total < limit:
            out.write(",\n" if total else "[\n")
            values = [jsonable(value) for value in row]
            json.dump(dict(zip(names, values, strict=True)), out, ensure_ascii=False)
            total += 1
    out.write("\n]\n" if total else "[]\n")
    return total


def _distinct(names: list[str]) -> list[str]:
    """Names of columns, those that came before with a number behind them."""
    found: dict[str, None] = {}
    for name in names:
        tried = (name if number == 1 else f"{name}_{number}" for number in count(1))
        found[next(one for one in tried if one not in found and (one == name or one not in names))] = None
    return list(found)


def jsonable(value: Any) -> Any:
    """A value as JSON has it: uids and bytes as hex, what is not finite as null, other types as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Decimal):
        # A number where JSON's readers, which take it for a double, get it back to the digit.
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, list | tuple):
        return [jsonable(one) for one in value]
    if isinstance(value, dict):
        return {str(jsonable(key)): jsonable(one) for key, one in value.items()}
    return str(value)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, float | Decimal):
        return value
    plain = jsonable(value)
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
        text = harmless(" ".join(str(jsonable(value)).split()))
    return text if len(text) <= cut else text[: cut - 1] + "…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _plain(error: duckdb.Error) -> str:
    """DuckDB's message with a way on."""
    return f"{str(error).strip()}\n(what there is: SELECT * FROM views; what it means: SELECT * FROM columns)"
