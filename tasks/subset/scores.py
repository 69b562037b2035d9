"""Score tables as filters: `score(name="fashion", fraction=0.3)`, of a home, or `score(path="theirs.parquet", ...)`.

A table is Parquet with a column of uids, in any form that metadata have them in (text of 32 hex digits, UUID, 16
bytes), and a column of numbers, the highest the best unless `lowest` is said. What `mgd score` writes is one; so is any
other's, of this pool or of a larger one. Samples that it does not score are left out, and how many, and what else of it
could not be used, is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.types as types

from tasks.files.artefacts import file_digest
from tasks.files.remote_files import Reader
from tasks.files.untrusted_parquet import parquet_batches, parquet_columns
from tasks.homes.working_copies import at_hand
from tasks.pool.metadata import check_uid_type, metadata_uids
from tasks.subset.expressions import expanded
from tasks.subset.filters import FilterError
from tasks.tables.run_folders import score_table
from tasks.tables.sql_names import quoted
from tasks.tables.uids import UID, uid_array

SCHEMA = pa.schema([("uid", UID), ("score", pa.float64())])
TAKES = ("name", "path", "column", "uid", "fraction", "size", "threshold", "lowest")
HOW = ("fraction", "size", "threshold")
LINE = (
    'it takes name="..." (of mgd score) or path="...", and fraction, size or threshold: score(name="a", fraction=0.3)'
)


@dataclass(frozen=True)
class ScoreSource:
    """A table of scores, the column of it, and which of the samples stay: a ``fraction`` of those that have a score, so
    many (``size``), or all from a ``threshold`` on; ``lowest``: of the lowest scores."""

    path: Path
    of: str
    uid: str
    column: str
    how: str
    value: float
    lowest: bool

    @property
    def place(self) -> Path:
        """The file it is read from."""
        return self.path

    @property
    def told(self) -> dict[str, Any]:
        """What makes its choice, for the record of a subset."""
        how = {"column": self.column, self.how: self.value, "lowest": self.lowest}
        return {"filter": "score", "file": self.of, "digest": file_digest(self.path), "parameters": how}


@dataclass(frozen=True)
class Unscored:
    """What a table of scores had not, or had and could not be used."""

    filter: str
    samples: int
    unscored: int
    nans: int
    repeated: int
    foreign: int

    def __str__(self) -> str:
        words = {
            f"{self.unscored:,} of the pool's {self.samples:,} samples have no score, and are left out": self.unscored,
            f"{self.nans:,} scores are missing or NaN": self.nans,
            f"{self.repeated:,} rows say again what another one says": self.repeated,
            f"{self.foreign:,} rows are of samples that the pool has not": self.foreign,
        }
        return f"{self.filter}: {'; '.join(word for word, is_so in words.items() if is_so)}"


def score_source(given: Mapping[str, str], home: Path, base: Path) -> ScoreSource:
    """The table that the arguments of `score(...)` name; raises FilterError with what would do."""
    unknown = [name for name in given if name not in TAKES]
    how = [name for name in HOW if name in given]
    if unknown or len(how) != 1 or ("name" in given) == ("path" in given):
        raise FilterError(f"score: {f'no parameter {unknown[0]!r}; ' if unknown else ''}{LINE}")
    if given.get("lowest", "false") not in ("true", "false"):
        raise FilterError(f"score: lowest = {given['lowest']}: true or false")
    if "name" in given:
        path = score_table(home, given["name"])
        at_hand(path)
    else:
        path = base / expanded(given["path"])
    if not path.is_file():
        there = (
            ", ".join(sorted(one.stem for one in score_table(home, "").parent.glob("*.parquet")))
            or "none yet (mgd score)"
        )
        raise FilterError(f"score: no file {path}; scores of this home: {there}")
    value = _value(how[0], given[how[0]])
    uid, column = _columns(path, given)
    return ScoreSource(
        path, given.get("name") or given["path"], uid, column, how[0], value, given.get("lowest") == "true"
    )


def choose(connection: duckdb.DuckDBPyConnection, source: ScoreSource, table: str) -> Unscored | None:
    """Make a table (uid, count) of the samples that stay; returns what is to be told.

    Equal scores stay in the order of their uids. Raises FilterError where one uid has two scores, MetadataError where a
    uid is none, Unreadable where the file is not sound.
    """
    failed: list[Exception] = []
    connection.register("incoming", _batches(source, failed.append))
    try:
        connection.execute("CREATE OR REPLACE TEMP TABLE told_scores AS SELECT uid, score FROM incoming")
    except Exception as error:  # DuckDB and Arrow wrap what the file's reader raises
        raise (failed[0] if failed else error) from None
    finally:
        connection.unregister("incoming")
    one = "SELECT uid FROM told_scores GROUP BY uid HAVING min(score) <> max(score) ORDER BY uid"
    if (twice := connection.execute(f"SELECT uid, count(*) OVER () FROM ({one}) LIMIT 1").fetchone()) is not None:
        raise FilterError(
            f"{source.path}: {twice[1]:,} uids have two scores in column {source.column!r}, for instance "
            f"{twice[0].hex}: it is not known which is right. Remove one of the rows"
        )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE one_score AS SELECT uid, any_value(score) AS score FROM told_scores "
        "SEMI JOIN samples USING (uid) WHERE score IS NOT NULL GROUP BY uid"
    )
    rows, nans, kinds, samples, scored, foreign = connection.execute(
        "SELECT (SELECT count(*) FROM told_scores), (SELECT count(*) - count(score) FROM told_scores), "
        "(SELECT count(DISTINCT uid) FROM told_scores WHERE score IS NOT NULL), (SELECT count(*) FROM samples), "
        "(SELECT count(*) FROM one_score), (SELECT count(*) FROM told_scores ANTI JOIN samples USING (uid))"
    ).fetchall()[0]
    order = f"score {'ASC' if source.lowest else 'DESC'}, uid"
    where = f"WHERE score {'<=' if source.lowest else '>='} $value::DOUBLE" if source.how == "threshold" else ""
    limit = "" if where else f"LIMIT {int(scored * source.value) if source.how == 'fraction' else int(source.value)}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT uid, 1::BIGINT AS count FROM one_score {where} "
        f"ORDER BY {order} {limit}",
        {"value": source.value} if where else {},
    )
    connection.execute("DROP TABLE told_scores; DROP TABLE one_score")
    found = Unscored(f"score({source.of})", samples, samples - scored, nans, rows - nans - kinds, foreign)
    return found if found.unscored or nans or found.repeated or foreign else None


def _batches(source: ScoreSource, failed: Callable[[Exception], object]) -> pa.RecordBatchReader:
    """uid and score (null where it is missing or no number) of every row."""

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in parquet_batches(str(source.path), Reader(), [source.uid, source.column]):
                uids = metadata_uids(str(source.path), batch[source.uid])
                score = (
                    batch[source.column].cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
                )
                yield pa.record_batch([uid_array(uids), pa.array(score, mask=np.isnan(score))], schema=SCHEMA)
        except Exception as error:
            failed(error)
            raise

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def _columns(path: Path, given: Mapping[str, str]) -> tuple[str, str]:
    """The columns of uids and of scores."""
    kinds = parquet_columns(str(path), Reader(), each_once=True)
    uid = given.get("uid", "uid")
    if uid not in kinds:
        raise FilterError(f"{path}: no column {uid!r}, only {', '.join(kinds)}; name it: score(uid=...)")
    check_uid_type(str(path), kinds[uid])
    numbers = [
        name for name, kind in kinds.items() if name != uid and (types.is_floating(kind) or types.is_integer(kind))
    ]
    column = given.get("column", numbers[0] if len(numbers) == 1 else "score")
    if column not in numbers:
        named = f"column {quoted(column)} is" if "column" in given or len(numbers) != 1 else "there is"
        raise FilterError(
            f"{path}: {named} no column of numbers; those are {', '.join(numbers) or 'none'}: score(column=...)"
        )
    return uid, column


def _value(how: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    least, most = {"fraction": (0, 1), "size": (1, 2**53)}.get(how, (-np.inf, np.inf))
    if not (isfinite(value) and least <= value <= most) or (how == "size" and value != int(value)):
        wants = {"fraction": "a share from 0 to 1", "size": "a whole number from 1 on"}.get(how, "a number")
        raise FilterError(f"score: {how} = {text}: not {wants}")
    return value
