"""A run's samples by position, the order of their uids, and what is known of each as numpy arrays of one length.

A column is read once, when it is first asked for, in pieces that are put in place by their uids; what was not used
longest goes when all together would take more than `MOST_BYTES`. A brush is then a comparison, a histogram a count of
bytes: 12.8 million samples take some 20 ms each. Conditions that were typed are asked in DuckDB once, and kept as a
mask. Memory: 24 bytes a sample, 9 for each column in use, 1 for each mask.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.explore.columns import OUTCOMES, Column
from tasks.explore.turns import Turn
from tasks.tables.queries import QueryError
from tasks.tables.sql_locks import check_one_question
from tasks.tables.uids import Bytes16, uid_bytes

MOST_BYTES = 1 << 30
"""Of columns and masks."""
PIECE = 1 << 20
ABOUT = 40
"""Bars of a histogram, about."""
SAMPLED = 200_000
"""Values that the ends of a histogram are found by."""
TAIL = 0.002
"""Share of the values beyond either end, which are counted in the outermost bars."""
WORDS = 24
"""Words of a column that have a bar each; the others share one."""
MOST_WORDS = 5_000
NONE, OTHERS, OUT = 255, 254, 253
"""Bars of samples without a value, of other words, and of those not counted."""

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Bars:
    """A column as bars: the bar of each sample, `codes` (n,), and what bar b is.

    Numbers: `edges` (m,), `values` (n,), NaN where there is none; bar 0 is below edges[0], bar b from edges[b - 1] on,
    bar m from the last on. Words: `words`, and OTHERS.
    """

    codes: Codes
    edges: npt.NDArray[np.float64] | None = None
    values: npt.NDArray[np.float64] | None = None
    words: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.codes.nbytes + (0 if self.values is None else self.values.nbytes)


class Frame:
    """The samples of a run, behind a connection that is asked by a cursor of its own each time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, turn: Turn | None = None) -> None:
        self._connection, self._guard = connection, threading.RLock()
        self._kept: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._making: dict[tuple[str, ...], threading.Lock] = {}
        uids = [uid_bytes(one["uid"]) for one in self.batches("SELECT uid FROM samples", turn or Turn())]
        self.uids: Bytes16 = np.concatenate([np.empty(0, "S16"), *uids])
        if not bool((self.uids[1:] > self.uids[:-1]).all()):
            self.uids = np.unique(self.uids)
        self._high = self.uids.view(">u8")[::2].astype(np.uint64)
        self._unique = bool((self._high[1:] != self._high[:-1]).all())

    def __len__(self) -> int:
        return len(self.uids)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of one's own to the same tables."""
        with self._guard:
            return self._connection.cursor()

    def batches(self, query: str, turn: Turn) -> Iterator[pa.RecordBatch]:
        """The rows of a question, in pieces."""
        with self.cursor() as cursor, turn.asking(cursor):
            for batch in cursor.sql(query).to_arrow_reader(PIECE):
                turn.check()
                yield batch

    def rows(self, query: str, parameters: list[Any], turn: Turn) -> list[dict[str, Any]]:
        """The rows of a small question, by column."""
        with self.cursor() as cursor, turn.asking(cursor):
            asked = cursor.execute(query, parameters)
            names = [column[0] for column in asked.description or []]
            return [dict(zip(names, row, strict=True)) for row in asked.fetchall()]

    def check(self, query: str) -> None:
        """Raise Forbidden, or QueryError, for what is not one question that may be asked."""
        with self.cursor() as cursor, Turn().asking(cursor):
            check_one_question(cursor, query)

    def positions(self, uids: Bytes16) -> npt.NDArray[np.int64]:
        """Where uids stand; raises QueryError for one that is not of the run."""
        if self._unique:
            high = np.ascontiguousarray(uids).view(">u8")[::2].astype(np.uint64)
            found = np.searchsorted(self._high, high)
        else:
            found = np.searchsorted(self.uids, uids)
        found = np.minimum(found, max(len(self) - 1, 0))
        if len(uids) and (not len(self) or not bool((self.uids[found] == uids).all())):
            raise QueryError("the filter line gives a uid that is not of this run")
        return found

    def mask(self, condition: str, turn: Turn) -> Mask:
        """Which samples a typed condition on `sample_outcomes` holds of (n,)."""
        query = f"SELECT uid FROM {OUTCOMES} WHERE {condition}"

        def made() -> Mask:
            self.check(query)
            mask = np.zeros(len(self), bool)
            for batch in self.batches(query, turn):
                if batch.num_columns != 1 or not _is_uid(batch.schema.field(0).type):
                    raise QueryError("the filter line is no condition: what follows WHERE is taken, true of a sample")
                mask[self.positions(uid_bytes(batch.column(0)))] = True
            return mask

        return self._keep(("mask", condition), made)

    def bars(self, column: Column, turn: Turn) -> Bars | None:
        """A column as bars; None for words of which there are too many. It is read to its end whatever is asked
        meanwhile: what supersedes the turn will want it too."""
        make = self._numbers if column.kind == "number" else self._words
        found: Bars | None = self._keep(("bars", column.key), lambda: make(column, Turn()))
        turn.check()
        return found

    def ranks(self, column: Column, turn: Turn) -> npt.NDArray[np.float64]:
        """What a column orders by (n,): its numbers, or the rank of its words; NaN where there is none."""
        if column.kind == "number":
            bars = self.bars(column, turn)
            assert bars is not None and bars.values is not None
            return bars.values
        value = f"CASE WHEN {column.value} IS NOT NULL THEN dense_rank() OVER (ORDER BY {column.value})::DOUBLE END"
        return self._keep(("ranks", column.key), lambda: self._read(column, value, np.float64, np.nan, turn))

    def _numbers(self, column: Column, turn: Turn) -> Bars:
        values = self._read(column, column.number, np.float64, np.nan, turn)
        edges = edges_of(values, column.is_whole)
        codes = np.searchsorted(edges, values, side="right").astype(np.uint8)
        codes[np.isnan(values)] = NONE
        return Bars(codes, edges, values)

    def _words(self, column: Column, turn: Turn) -> Bars | None:
        value = f"({column.value})::VARCHAR"
        ((number,),) = (tuple(row.values()) for row in self.rows(
            f"SELECT approx_count_distinct({value}) AS number {column.from_where}", [], turn))  # fmt: skip
        if number > MOST_WORDS:
            return None
        top = self.rows(
            f"SELECT {value} AS word, count(*) AS number {column.from_where} GROUP BY 1 HAVING word IS NOT NULL "
            f"ORDER BY number DESC, word LIMIT {WORDS}", [], turn
        )  # fmt: skip
        words = tuple(str(row["word"]) for row in top)
        listed = ", ".join("'" + word.replace("'", "''") + "'" for word in words)
        code = f"coalesce(list_position([{listed}]::VARCHAR[], {value}) - 1, {OTHERS})"
        code = f"CASE WHEN {value} IS NULL THEN {NONE} ELSE {code} END::UTINYINT"
        return Bars(self._read(column, code, np.uint8, NONE, turn), words=words)

    def _read(self, column: Column, value: str, kind: Any, empty: Any, turn: Turn) -> npt.NDArray[Any]:
        """A value of each sample (n,), `empty` where there is none."""
        found, at = np.full(len(self), empty, kind), 0
        for batch in self.batches(f"SELECT uid, {value} AS value {column.from_where}", turn):
            values = batch.column(1)
            filled = values.fill_null(empty) if values.null_count else values
            uids = uid_bytes(batch.column(0))
            stop = at + len(uids)
            in_order = stop <= len(self) and np.array_equal(self.uids[at:stop], uids)
            found[slice(at, stop) if in_order else self.positions(uids)] = filled.to_numpy(zero_copy_only=False)
            at = stop
        return found

    def _keep(self, key: tuple[str, ...], make: Any) -> Any:
        """What was made before under a key, or is made now, once however many ask."""
        with self._guard:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._guard:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            made = make()
            with self._guard:
                self._kept[key] = made
                while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > MOST_BYTES:
                    gone, _ = self._kept.popitem(last=False)
                    self._making.pop(gone, None)
            return made


def edges_of(values: npt.NDArray[np.float64], is_whole: bool) -> npt.NDArray[np.float64]:
    """Round edges (m,) of about ABOUT bars, between which all but TAIL of the values at either end lie."""
    some = values[:: max(1, len(values) // SAMPLED)]
    some = some[~np.isnan(some)]
    if not len(some):
        return np.zeros(0)
    low, high = (float(x) for x in np.quantile(some, [TAIL, 1 - TAIL], method="nearest"))
    step = _step((high - low) / ABOUT, is_whole)
    first, last = np.floor(low / step), np.floor(high / step) + 1
    # k / (1 / step) is the number that is written with few digits, which k * step need not be.
    return np.arange(first, last + 1) / (1 / step) if step < 1 else np.arange(first, last + 1) * step


def counted(codes: Codes, mask: Mask | None) -> npt.NDArray[np.int64]:
    """How many samples of a mask have each code (256,). Two bytes are counted at once, which halves the time."""
    total = np.zeros(256, np.int64)
    for at in range(0, len(codes), PIECE):
        part = codes[at : at + PIECE]
        if mask is not None:
            part = np.where(mask[at : at + PIECE], part, np.uint8(OUT))
        even = len(part) & ~1
        pairs = np.bincount(np.ascontiguousarray(part[:even]).view(np.uint16), minlength=1 << 16).reshape(256, 256)
        total += pairs.sum(0) + pairs.sum(1) + np.bincount(part[even:], minlength=256)
    if mask is not None:
        total[OUT] = 0
    return total


def _step(width: float, is_whole: bool) -> float:
    """1, 2 or 5 times a power of ten, at least so wide."""
    if not width > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(width))
    step = float(next(power * m for m in (1, 2, 5, 10) if power * m >= width * (1 - 1e-9)))
    return max(step, 1.0) if is_whole else float(f"{step:.3g}")


def _size(kept: Any) -> int:
    return kept.size if isinstance(kept, Bars) else getattr(kept, "nbytes", 0)


def _is_uid(kind: pa.DataType) -> bool:
    return kind == pa.uuid() or (pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16)
