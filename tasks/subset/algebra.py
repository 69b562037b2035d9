"""Subsets by expression: filters asked in DuckDB, joined by set algebra, streamed out in the order of the uids.

Each operand is asked once and kept in a table of its own (which DuckDB spills to disk where it is large), so that how
many samples each of them chose can be told. Memory: `candidates.MEMORY`, and one piece of 2^20 samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from tasks.files.artefacts import publish_json, read_json
from tasks.files.export_directories import ExportError
from tasks.files.export_files import publishing_over
from tasks.subset.candidates import Candidates
from tasks.subset.expressions import Combination, Expression
from tasks.subset.files import MOST_COPIES, Counts, SubsetError
from tasks.subset.filters import FILTERS, FilterError, columns_of, query_text
from tasks.subset.languages import add_language
from tasks.subset.record_streams import RecordWriter, subset_batches
from tasks.subset.scores import ScoreSource, Unscored, choose
from tasks.subset.sources import FileSource, FilterSource, Source, resolved
from tasks.tables.sql_locks import Forbidden, check_one_question
from tasks.tables.sql_names import quoted
from tasks.tables.uids import Bytes16, uid_bytes, uid_hex

PIECE = 1 << 20
JOINED = {
    "&": "SELECT * FROM ({left}) SEMI JOIN ({right}) USING (uid)",
    "-": "SELECT * FROM ({left}) ANTI JOIN ({right}) USING (uid)",
    "|": "SELECT uid, max(count) AS count FROM (({left}) UNION ALL ({right})) GROUP BY uid",
    "+": "SELECT uid, sum(count)::BIGINT AS count FROM (({left}) UNION ALL ({right})) GROUP BY uid",
}


@dataclass(frozen=True)
class Missing:
    """Values that a filter could not judge by: null or NaN in a column it reads."""

    filter: str
    column: str
    nulls: int
    nans: int
    of: int

    def __str__(self) -> str:
        what = " and ".join(f"{n:,} {word}" for n, word in ((self.nulls, "missing"), (self.nans, "NaN")) if n)
        return f"{self.filter}: of {self.of:,} values of {self.column}, {what}"


@dataclass(frozen=True)
class Choice:
    """A subset that was written: how much, of what, by which operands, and what they could not judge."""

    path: Path
    expression: str
    candidates: str
    pool_digest: str
    of: int
    records: int
    distinct: int
    most_copies: int
    operands: list[dict[str, Any]]
    missing: list[Missing | Unscored] = field(default_factory=list)


@dataclass
class Asked:
    """An expression whose operands are tables of the connection; `query` gives uid and count, sorted."""

    expression: str
    query: str
    operands: list[dict[str, Any]]
    missing: list[Missing | Unscored]


def write_choice(candidates: Candidates, text: str, out: Path) -> Choice:
    """Write the subset of an expression as DataComp's `.npy`, with its provenance beside it (`.json` appended).

    Raises ExpressionError, FilterError, or SubsetError where nothing, or what is not in the pool, is chosen.
    """
    asked = ask(candidates, text)
    _check_record(provenance_path(out))
    with publishing_over(out, "datacomp") as file:
        writer = RecordWriter(file)
        for uids, counts in pieces(candidates, asked):
            writer.add(uids, counts)
        if not writer.records:
            raise _chose_none(candidates, asked)
        writer.finish()
    total = _number(candidates.connection, "SELECT count(*) FROM samples")
    found = (writer.records, writer.distinct, writer.most_copies, asked.operands, asked.missing)
    choice = Choice(out, asked.expression, candidates.name, candidates.digest, total, *found)
    publish_json(provenance_path(out), _provenance(choice))
    return choice


def provenance_path(out: Path) -> Path:
    """Where what a subset file came from is written."""
    return out.with_name(f"{out.name}.json")


def _check_record(path: Path) -> None:
    """Raise ExportError where something else lies in the place of a subset's provenance."""
    try:
        ours = not path.exists() or "expression" in read_json(path)
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise ExportError(f"{path}: is there, and does not say where a subset came from; name another --out")


def chosen_counts(candidates: Candidates, text: str, uids: Bytes16, base: Path | None = None) -> tuple[Counts, Asked]:
    """How often each of `uids` (n,), sorted, is chosen: counts (n,), 0 where it is not; and how that came about."""
    asked, counts = ask(candidates, text, base), np.zeros(len(uids), np.int64)
    for found, numbers in pieces(candidates, asked):
        at = np.searchsorted(uids, found)
        counts[at] = numbers
    if not counts.any():
        raise _chose_none(candidates, asked)
    return counts, asked


def ask(candidates: Candidates, text: str, base: Path | None = None) -> Asked:
    """Ask each operand of an expression; raises FilterError with DuckDB's words where a filter cannot be asked."""
    try:
        return _asked(candidates, text, base)
    except duckdb.Error as error:
        raise FilterError(f"{text}: DuckDB cannot answer it: {error}") from error


def _asked(candidates: Candidates, text: str, base: Path | None) -> Asked:
    tree, sources = resolved(text, candidates.home, base)
    told, missing = list[dict[str, Any]](), list[Missing | Unscored]()
    if any(isinstance(source, FilterSource) and source.needs_language for source in sources):
        add_language(candidates.connection)
    for number, source in enumerate(sources):
        if isinstance(source, FilterSource):
            missing += _ask_filter(candidates, source, f"operand_{number}")
        elif isinstance(source, ScoreSource):
            told_of = choose(candidates.connection, source, f"operand_{number}")
            missing += [told_of] if told_of else []
        else:
            _load_file(candidates.connection, source, f"operand_{number}")
        told.append({**source.told, **_sizes(candidates.connection, source, f"operand_{number}")})
    tables = iter(f"SELECT uid, count FROM operand_{number}" for number in range(len(sources)))
    query = _joined(tree, tables)
    if not all(_trusted(source) for source in sources):
        _refuse_foreign(candidates, str(tree), query, sources)
    return Asked(str(tree), f"{query} ORDER BY uid", told, missing)


def pieces(candidates: Candidates, asked: Asked) -> Iterator[tuple[Bytes16, Counts]]:
    """uids, ascending, and how often each is chosen, PIECE at a time."""
    reader = candidates.connection.sql(asked.query).to_arrow_reader(PIECE)
    for batch in reader:
        yield uid_bytes(batch["uid"]), batch["count"].to_numpy(zero_copy_only=False).astype(np.int64)


def _ask_filter(candidates: Candidates, source: FilterSource, table: str) -> list[Missing]:
    connection, one = candidates.connection, source.filter
    columns = columns_of(one, source.values, candidates.columns)
    query = query_text(one, source.values, columns)
    values = {name: value for name, value in source.values.items() if re.search(rf"[$]{name}\b", one.query)}
    try:
        check_one_question(connection, query)
        kinds = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE {query}", values).fetchall()}
        names = list(kinds)
        if names not in (["uid"], ["uid", "count"]):
            raise FilterError(f"{one.path}: gives {', '.join(names)}; a filter gives uid, or uid and count")
        if not kinds.get("count", "INT").endswith("INT") and "INTEGER" not in kinds["count"]:
            raise FilterError(f"{one.path}: its count is {kinds['count']}; counts are whole numbers: cast it")
        count = "count::BIGINT" if "count" in names else "1::BIGINT"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT uid::UUID AS uid, {count} AS count FROM (\n{query}\n)",
            values,
        )
    except Forbidden as error:
        raise FilterError(f"{one.path}: {error}") from error
    except duckdb.Error as error:
        raise FilterError(f"{one.path}: DuckDB cannot answer it: {error}") from error
    return [found for column in columns.values() if (found := _missing(candidates, one.name, column))]


def _missing(candidates: Candidates, name: str, column: str) -> Missing | None:
    """What a column lacks; None where it lacks nothing."""
    floating = candidates.columns[column] in {"FLOAT", "DOUBLE"}
    nan = f"count(*) FILTER (isnan({quoted(column)}))" if floating else "0"
    nulls, nans, n = candidates.connection.execute(
        f"SELECT count(*) FILTER ({quoted(column)} IS NULL), {nan}, count(*) FROM samples"
    ).fetchall()[0]
    return Missing(name, column, nulls, nans, n) if nulls or nans else None


def _load_file(connection: duckdb.DuckDBPyConnection, source: FileSource, table: str) -> None:
    """Make a table of a subset file; raises SubsetError, or OSError, as its reader does."""
    failed: list[Exception] = []
    connection.register("incoming", subset_batches(source.path, failed.append))
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT uid, count FROM incoming")
    except Exception as error:  # DuckDB and Arrow wrap what the file's reader raises
        raise (failed[0] if failed else error) from None
    finally:
        connection.unregister("incoming")


def _trusted(source: Source) -> bool:
    """Whether it comes with mgd, or is asked by it, and so gives the pool's own uids, each once: to see that takes a
    table of all uids."""
    if isinstance(source, ScoreSource):
        return True
    return isinstance(source, FilterSource) and source.filter.path.parent == FILTERS


def _sizes(connection: duckdb.DuckDBPyConnection, source: Source, table: str) -> dict[str, int]:
    """Samples of an operand and their copies; raises SubsetError where a count is below 1 or missing, or a sample comes
    twice or without its uid."""
    twice = "0" if _trusted(source) else "count(*) - count(DISTINCT uid)"
    counted = "coalesce(sum(count), 0)::BIGINT, coalesce(min(count), 1), coalesce(max(count), 1)"
    rows = f"SELECT count(*), {counted}, {twice}, count(*) - count(uid), count(*) - count(count) FROM {table}"
    distinct, records, least, most, repeats, nameless, uncounted = connection.execute(rows).fetchall()[0]
    wrong = {
        f"gives {nameless:,} rows without a uid": nameless,
        f"gives {uncounted:,} rows without a count": uncounted,
        f"gives {repeats:,} uids twice": repeats,
        f"gives a count of {least:,}": least < 1,
        f"gives a count of {most:,}, and {MOST_COPIES:,} are the most": most > MOST_COPIES,
    }
    for what in (what for what, is_so in wrong.items() if is_so):
        raise SubsetError(f"{source.place}: {what}; each uid stands once, with a count above 0 or none")
    return {"distinct": distinct, "records": records}


def _joined(tree: Expression, tables: Iterator[str]) -> str:
    if not isinstance(tree, Combination):
        return next(tables)
    left = _joined(tree.left, tables)
    return JOINED[tree.sign].format(left=left, right=_joined(tree.right, tables))


def _chose_none(candidates: Candidates, asked: Asked) -> SubsetError:
    """What is told where nothing is left: how many samples each operand chose."""
    parts = [f"{told.get('filter') or told['file']} {told['distinct']:,}" for told in asked.operands]
    empty = any(not told["distinct"] for told in asked.operands)
    joined = "" if empty or len(parts) < 2 else ": together, nothing"
    return SubsetError(
        f"{asked.expression}: chooses none of the samples of {candidates.name}. Samples that each operand chose: "
        f"{', '.join(parts)}{joined}"
    )


def _refuse_foreign(candidates: Candidates, expression: str, query: str, sources: list[Source]) -> None:
    foreign = f"SELECT uid FROM ({query}) ANTI JOIN samples USING (uid)"
    n = _number(candidates.connection, f"SELECT count(*) FROM ({foreign})")
    if n:
        first = uid_hex(
            row[0].bytes for row in candidates.connection.execute(f"{foreign} ORDER BY uid LIMIT 3").fetchall()
        )
        where = []
        for number, source in enumerate(sources):
            of = f"SELECT count(*) FROM (SELECT uid FROM operand_{number} ANTI JOIN samples USING (uid))"
            own = 0 if _trusted(source) else _number(candidates.connection, of)
            where += [f"{own:,} of {source.place}"] if own else []
        raise SubsetError(
            f"{expression}: {n:,} of its samples are not in {candidates.name}: {', '.join(first)}, ... "
            f"({'; '.join(where)}). They are of another pool, or could not be used here: `(...) & no_filter` leaves "
            "them out"
        )


def _provenance(choice: Choice) -> dict[str, Any]:
    shown = ("expression", "candidates", "pool_digest", "of", "records", "distinct", "most_copies", "operands")
    missing = [{**vars(one)} for one in choice.missing]
    return {name: getattr(choice, name) for name in shown} | {"missing": missing, "duckdb": duckdb.__version__}


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])
