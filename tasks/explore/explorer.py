"""What the page asks of a run: how many samples a choice shows and how they lie in each column, which come first, what
one of them went through.

`Explorer` opens a run's read-only connection and holds its `Frame`. Every answer is plain values for JSON.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.explore.choice import Brush, Choice, ChoiceError, column_of
from tasks.explore.columns import OUTCOMES, Column, columns_of
from tasks.explore.frame import NONE, OTHERS, Bars, Frame, Mask, counted
from tasks.explore.turns import Turn
from tasks.files.artefacts import read_json
from tasks.pool.record import load_pool
from tasks.subset.candidates import settings_of
from tasks.tables.published import age
from tasks.tables.queries import ALL, QueryError, asking, chosen_runs, connect
from tasks.tables.query_output import jsonable
from tasks.tables.uids import uid_hex

MEMORY = "1GiB"
"""Of DuckDB, which spills beyond."""
MOST_ROWS = 400
"""Samples of one answer."""
DEEPEST = 200_000
"""Samples that can be scrolled to in any order; a browser's page ends not far beyond."""
AHEAD = 2_048
"""Samples that are put in order at least."""
CAPTION, STORY = 300, 20_000
"""Characters of a caption that are shown in the grid, and in a sample's story."""
ALIKE = 24
"""Samples of the same caption that are shown."""
REMEMBERED = 20_000
"""Samples whose place in their shard is known without asking."""
SEEN = ("shard", "image_offset", "image_size", "width", "height")
TRUTH = ("truth_clean", "truth_text")


class Explorer:
    """A run that is looked at. `home` and `run` as in `queries.connect`, but one run only."""

    def __init__(self, home: Path, run: str, settings: dict[str, Any]) -> None:
        self.home, self.run, self._settings = home, run, settings
        self._guard = threading.Lock()
        self.open()

    def open(self) -> None:
        """Open the tables as they are now; what is being asked of those before goes on."""
        stamp = age(self.home, self.run)
        connection = connect(self.home, self.run, settings=self._settings)
        try:
            with asking():
                columns: dict[str, Column] = {one.key: one for one in columns_of(connection)}
            frame = Frame(connection)
        except BaseException:
            connection.close()
            raise
        with self._guard:
            self.stamp, self.columns, self.frame = stamp, columns, frame
            self._places: OrderedDict[str, dict[str, Any]] = OrderedDict()
            self._orders: OrderedDict[str, npt.NDArray[np.int64]] = OrderedDict()

    def renew(self) -> dict[str, Any]:
        """Open the tables again if more was published since; the run as `told`."""
        if self.is_stale:
            self.open()
        return self.told()

    @property
    def is_stale(self) -> bool:
        """Whether the run has published more than what is open."""
        return self.stamp != age(self.home, self.run)

    def close(self) -> None:
        """Let go of the tables."""
        self.frame.close()

    @cached_property
    def pool_directory(self) -> Path | None:
        """Where relative shards lie, None where the run's record is gone."""
        path = self.home / "runs" / self.run / "run.json"
        return self.home / "pools" / str(read_json(path)["pool_id"]) if path.exists() else None

    @cached_property
    def kind(self) -> str:
        """What the samples are: pairs or texts."""
        pool = load_pool(self.pool_directory) if self.pool_directory else None
        if pool is not None:
            return pool.samples_kind
        return "pairs" if self.frame.rows("SELECT 1 FROM samples WHERE image_size > 0 LIMIT 1", [], Turn()) else "texts"

    @cached_property
    def truths(self) -> list[str]:
        """Columns of the truth that the pool has, where it is a truth."""
        there = {one.label: one.type for one in self.columns.values() if one.key.startswith("o:")}
        return [name for name in TRUTH if name in there] if there.get(TRUTH[0]) == "BOOLEAN" else []

    def told(self) -> dict[str, Any]:
        """The run, and the columns there are."""
        columns = [
            {"key": c.key, "label": c.label, "kind": c.kind, "type": c.type, "doc": c.doc, "isMeasure": c.is_measure}
            for c in self.columns.values()
        ]
        return {"run": self.run, "samples": len(self.frame), "kind": self.kind, "columns": columns,
                "deepest": DEEPEST, "stale": self.is_stale}  # fmt: skip

    def shown(self, choice: Choice, turn: Turn, but: str | None = None) -> Mask | None:
        """Which samples a choice shows (n,), None for all; `but`: as if one column were not brushed."""
        mask: Mask | None = None
        for condition in choice.typed:
            found = self.frame.mask(condition, turn)
            mask = found if mask is None else mask & found
        for key, brush in choice.brushes.items():
            if key != but:
                found = self._brushed(column_of(self.columns, key), brush, turn)
                mask = found if mask is None else mask & found
        return mask

    def count(self, choice: Choice, turn: Turn) -> dict[str, Any]:
        """How many samples are shown, and the condition that says which, for SQL."""
        mask = self.shown(choice, turn)
        return {"shown": len(self.frame) if mask is None else int(np.count_nonzero(mask)), "of": len(self.frame),
                "sql": choice.query(self.columns)}  # fmt: skip

    def chart(self, choice: Choice, key: str, turn: Turn) -> dict[str, Any]:
        """How the samples lie in a column: all, and those shown by all but the column's own brush."""
        column = column_of(self.columns, key)
        if column.kind == "other":
            raise ChoiceError(f"{column.label} is of type {column.type}, which is not charted; ask for it in SQL")
        bars = self.frame.bars(column, turn)
        if bars is None:
            return {"key": key, "many": True}
        turn.check()
        mask = self.shown(choice, turn, but=key)
        every, shown = counted(bars.codes, None), counted(bars.codes, mask)
        size = len(bars.words) if bars.edges is None else len(bars.edges) + 1
        return {
            "key": key,
            "edges": None if bars.edges is None else bars.edges.tolist(),
            "words": list(bars.words),
            "all": every[:size].tolist(),
            "shown": shown[:size].tolist(),
            "none": [int(every[NONE]), int(shown[NONE])],
            "others": [int(every[OTHERS]), int(shown[OTHERS])],
        }

    def rows(self, choice: Choice, start: int, size: int, turn: Turn) -> list[dict[str, Any]]:
        """The samples shown from place `start` of the order on, as tiles show them."""
        if not (0 <= start < DEEPEST and 0 < size <= MOST_ROWS):
            raise ChoiceError(f"places {start:,} to {start + size:,}: at most {MOST_ROWS} up to place {DEEPEST:,}")
        order = self.ordered(choice, start + size, turn)
        return self.tiles(self.frame.uids[order[start : start + size]], turn)

    def tiles(self, uids: npt.NDArray[np.bytes_], turn: Turn) -> list[dict[str, Any]]:
        """What tiles show of samples, in their order."""
        named = uid_hex(uids)
        columns = ["uid", f"left(text, {CAPTION}) AS text", "length(text) AS length", *SEEN, *self.truths]
        # Of `samples`, where a filter by uid is read before the captions are; figures are at hand by position.
        asked = f"SELECT {', '.join(columns)} FROM samples WHERE {self._among(named)}"
        found = {row.pop("uid").hex: row for row in self.frame.rows(asked, [named], turn)}
        places = self.frame.positions(uids)
        g, count = (self.frame.ranks(self.columns[key], turn)[places].tolist() for key in ("o:g_sum", "o:count"))
        with self._guard:
            self._places |= {uid: {name: row[name] for name in SEEN} for uid, row in found.items()}
            while len(self._places) > REMEMBERED:
                self._places.popitem(last=False)
        shown = ("text", "length", "width", "height", *self.truths)
        return [
            {"uid": uid, **{name: jsonable(found[uid][name]) for name in shown}, "g_sum": jsonable(g_sum),
             "count": None if copies != copies else int(copies)}
            for uid, g_sum, copies in zip(named, g, count, strict=True)
        ]  # fmt: skip

    def place(self, uid: str) -> dict[str, Any] | None:
        """Where a sample's picture lies; None for a uid that the run does not have."""
        with self._guard:
            known = self._places.get(uid)
        if known is None:
            asked = f"SELECT {', '.join(SEEN)} FROM samples WHERE uid = ?::UUID"
            known = next(iter(self.frame.rows(asked, [uid], Turn())), None)
        return known

    def ordered(self, choice: Choice, most: int, turn: Turn) -> npt.NDArray[np.int64]:
        """Positions of the first `most` samples shown, or a few more, in the order of the choice; equals go by uid."""
        key = choice.model_dump_json()
        known = self._orders.get(key)
        mask = self.shown(choice, turn)
        there = len(self.frame) if mask is None else int(np.count_nonzero(mask))
        if known is not None and len(known) >= min(most, there):
            return known
        values = self._keys(choice, turn)
        chosen = np.arange(len(self.frame)) if mask is None else np.flatnonzero(mask)
        turn.check()
        room = min(DEEPEST, max(AHEAD, 1 << (most - 1).bit_length()))
        order = chosen[: room if values is None else None]
        if values is not None:
            order = chosen[first_of(values[chosen], room)]
        elif choice.descending:
            order = chosen[::-1][:room]
        with self._guard:
            self._orders[key] = order
            while len(self._orders) > 8:
                self._orders.popitem(last=False)
        return order

    def story(self, uid: str, turn: Turn) -> dict[str, Any]:
        """All that is known of one sample, its rounds, and those of the same caption."""
        asked = f"SELECT * FROM {OUTCOMES} WHERE uid = ?::UUID"
        found = self.frame.rows(asked, [uid], turn) if uid else []
        if not found:
            raise ChoiceError(f"{uid or 'that'}: no such sample in run {self.run}")
        row = {name: value for name, value in found[0].items() if name != "run"}
        text = row.pop("text") or ""
        rounds = self.frame.rows(
            "SELECT round, r.count, r.g, m.g_error FROM sample_rounds AS r "
            "LEFT JOIN metagradients AS m USING (uid, round) WHERE r.uid = ?::UUID ORDER BY round", [uid], turn
        )  # fmt: skip
        alike = self.frame.rows(
            "SELECT uid FROM samples WHERE text = (SELECT text FROM samples WHERE uid = $1::UUID) AND uid <> $1::UUID "
            f"ORDER BY uid LIMIT {ALIKE}", [uid], turn
        )  # fmt: skip
        docs = {one.label: one.doc for one in self.columns.values() if one.key.startswith("o:")}
        values = [{"name": n, "value": _short(jsonable(v)), "doc": docs.get(n, "")} for n, v in row.items()]
        tiles = self.tiles(np.array([one["uid"].bytes for one in alike], "S16"), turn)
        told = {"uid": uid, "text": text[:STORY], "length": len(text), "values": values, "alike": tiles}
        return told | {"rounds": [{name: jsonable(value) for name, value in one.items()} for one in rounds]}

    def moves(self, a: int, b: int, turn: Turn) -> dict[str, int]:
        """How many samples' counts went which way from round `a` to round `b`."""
        holds = {"entered": "a.count = 0 AND b.count > 0", "left": "a.count > 0 AND b.count = 0",
                 "raised": "a.count > 0 AND b.count > a.count", "lowered": "b.count > 0 AND b.count < a.count",
                 "same": "a.count = b.count"}  # fmt: skip
        told = ", ".join(f'count(*) FILTER ({condition}) AS "{name}"' for name, condition in holds.items())
        joined = "counts AS a JOIN counts AS b USING (uid)"
        (found,) = self.frame.rows(f"SELECT {told} FROM {joined} WHERE a.round = ? AND b.round = ?", [a, b], turn)
        return found

    def _brushed(self, column: Column, brush: Brush, turn: Turn) -> Mask:
        bars = self.frame.bars(column, turn) if column.kind != "other" else None
        if bars is None:
            raise ChoiceError(f"{column.label} has no bars to brush; write a condition in the filter line instead")
        if bars.values is not None:
            if brush.words is not None:
                raise ChoiceError(f"{column.label} holds numbers, and is not brushed by words")
            return _within(bars, brush)
        if brush.words is None:
            raise ChoiceError(f"{column.label} holds words, and is not brushed by bounds")
        unknown = set(brush.words) - set(bars.words)
        if unknown:
            raise ChoiceError(f"{column.label}: no bar {sorted(unknown)[0][:80]!r}; write it in the filter line")
        codes = [bars.words.index(word) for word in brush.words] + [NONE] * brush.none
        return np.isin(np.arange(256, dtype=np.uint8), np.array(codes, np.uint8))[bars.codes]

    def _keys(self, choice: Choice, turn: Turn) -> npt.NDArray[Any] | None:
        """What the samples are ordered by (n,), the least first; None for the order of the uids."""
        if choice.order == "uid":
            return None
        if choice.order == "random":
            return shuffled(len(self.frame), choice.seed)
        ranks = self.frame.ranks(column_of(self.columns, choice.order), turn)
        # Samples without a value come last either way, as NaN sorts.
        return -ranks if choice.descending else ranks

    def _among(self, named: list[str]) -> str:
        """The WHERE of some uids, with their span: row groups that hold none are passed over."""
        within = f"uid BETWEEN '{min(named)}'::UUID AND '{max(named)}'::UUID AND " if named else ""
        return f"{within}uid IN (SELECT unnest(?::UUID[]))"


@contextmanager
def explored(home: Path, run: str | None) -> Iterator[Explorer]:
    """A run of a home, or its latest, opened; raises QueryError where there is none."""
    home = Path(home)
    chosen = chosen_runs(home, run)
    if len(chosen) != 1 or run == ALL:
        raise QueryError(f"{home}: one run is looked at a time; it has {', '.join(chosen) or 'none, only censuses'}")
    with settings_of(home) as settings:
        explorer = Explorer(home, chosen[0], settings | {"memory_limit": MEMORY})
        try:
            yield explorer
        finally:
            explorer.close()


def first_of(values: npt.NDArray[Any], most: int) -> npt.NDArray[np.int64]:
    """Places of the `most` least values, the least first, equals in the order of their places; NaN last."""
    if len(values) <= most:
        return np.argsort(values, kind="stable")
    limit = np.partition(values, most - 1)[most - 1]
    if np.isnan(limit):
        numbers = np.flatnonzero(~np.isnan(values))
        rest = np.flatnonzero(np.isnan(values))[: most - len(numbers)]
        return np.concatenate([numbers[np.argsort(values[numbers], kind="stable")], rest])
    below = np.flatnonzero(values < limit)
    ties = np.flatnonzero(values == limit)[: most - len(below)]
    return np.concatenate([below[np.argsort(values[below], kind="stable")], ties])


def shuffled(n: int, seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each of n places: a function of seed and place alone."""
    return np.random.default_rng([seed, 16]).random(n)


def _within(bars: Bars, brush: Brush) -> Mask:
    """Numbers of a brush: by the bytes of their bars where the ends are edges, else by their values."""
    assert bars.edges is not None and bars.values is not None
    if brush.none:
        return bars.codes == NONE
    known = {edge: place + 1 for place, edge in enumerate(bars.edges.tolist())}
    low = 0 if brush.low is None else known.get(brush.low)
    high = NONE if brush.high is None else known.get(brush.high)
    if low is not None and high is not None:
        return np.asarray((bars.codes >= low) & (bars.codes < high))
    lowest = -np.inf if brush.low is None else brush.low
    highest = np.inf if brush.high is None else brush.high
    return np.asarray((bars.values >= lowest) & (bars.values < highest))


def _short(value: Any) -> Any:
    return f"{value[:STORY]}…" if isinstance(value, str) and len(value) > STORY else value
