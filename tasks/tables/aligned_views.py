"""Aligned views: those of one run that join samples to what rounds say of them, read side by side instead of joined.

A run's samples, counts and metagradients are sorted by uid and, as a rule, of the same samples: then row i of each is
the same sample's, and DuckDB's positional join takes a fifth of a hash join's time and next to no memory. A large table
is cut into stretches of row groups, each with the range of its uids: they are read in parallel, and a question about
one uid opens one of them. Where the digests of the uids do not agree, or several runs are asked at once, the views of
`catalogs/views` stand as they are; both give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from tasks.tables.published import files, uids_of
from tasks.tables.sql_names import literal, parquet
from tasks.tables.table_views import samples_select

MOST_ROUNDS = 100
"""Every file of aligned views is opened with the connection; with more rounds the joins of `catalogs/views` do."""
MOST_STRETCHES = 16
OPENED = 128
"""Stretches of all rounds together, each of which costs some milliseconds on opening."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of all aligned tables; `uids`: the first and last of them as text, None for all rows."""

    start: int
    stop: int
    uids: tuple[str, str] | None

    def rows_of(self, source: Path | str, columns: str) -> str:
        """A SELECT of columns of these rows of a file, or of the FROM clause that reads one."""
        if isinstance(source, Path):
            source = parquet([source])
        if self.uids is None:
            return f"SELECT {columns} FROM {source}"
        return f"SELECT {columns} FROM {source} WHERE file_row_number >= {self.start} AND file_row_number < {self.stop}"


@dataclass(frozen=True)
class AlignedViews:
    """Files of one run whose rows are of the same samples in the same order, by round; and the chosen round."""

    run: str
    samples: Path
    counts: dict[int, Path]
    metagradients: dict[int, Path]
    chosen: int

    @classmethod
    def of(cls, home: Path, run: str) -> AlignedViews | None:
        """The aligned views of a run, or None where its files are not of the same samples."""
        tables = ("samples", "counts", "metagradients")
        samples, counts, gradients = (files(home, run, table) for table in tables)
        found = {digest for table in tables for digest in uids_of(home, run, table).values()}
        if len(found) != 1 or "" in found or not counts or not samples or len(counts) > MOST_ROUNDS:
            return None
        chosen = max(files(home, run, "choices"), default=max(counts))
        return cls(run, samples[max(samples)], counts, gradients, chosen)

    def views(self) -> dict[str, str]:
        """The statements of the views that are quicker this way, by name."""
        stretches = list(self._stretches())
        rounds = [self._round(number, rows) for number in self.counts for rows in stretches]
        outcomes = [self._outcomes(rows) for rows in stretches]
        views = {"sample_rounds": rounds, "sample_outcomes": outcomes}
        return {name: f"CREATE VIEW {name} AS " + " UNION ALL ".join(selects) for name, selects in views.items()}

    def _stretches(self) -> Iterator[Stretch]:
        with pq.ParquetFile(self.samples) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        at = file.schema_arrow.names.index("uid")
        ranges = [group.column(at).statistics for group in groups]
        most = max(1, min(MOST_STRETCHES, OPENED // len(self.counts)))
        if len(groups) < 2 or most == 1 or any(one is None or not one.has_min_max for one in ranges):
            yield Stretch(0, sum(group.num_rows for group in groups), None)
            return
        size, start = -(-len(groups) // most), 0
        for i in range(0, len(groups), size):
            stop = start + sum(group.num_rows for group in groups[i : i + size])
            first, last = ranges[i].min, ranges[min(i + size, len(groups)) - 1].max
            yield Stretch(start, stop, (_text(first), _text(last)))
            start = stop

    def _round(self, number: int, rows: Stretch) -> str:
        joined = (
            self._counts(number, rows),
            self._counts(number - 1, rows),
            self._g(number, rows),
            self._g(number - 1, rows),
        )
        told = f"{number}::INTEGER AS round, samples.uid, now.count, was.count AS before, now_g.g, was_g.g AS g_before"
        return self._select(told, dict(zip(("now", "was", "now_g", "was_g"), joined, strict=True)), rows)

    def _outcomes(self, rows: Stretch) -> str:
        before = [f"m{number}.g" for number in self.metagradients if number < self.chosen]
        later = [f"m{number}.g" for number in self.metagradients if number >= self.chosen]
        probes, total, by_round = _sums(before)
        later_probes, later_total, later_by_round = _sums(later)
        told = (
            "samples.uid, CASE WHEN chosen.count = 0 THEN 'dropped' WHEN chosen.count = 1 THEN 'kept' "
            "WHEN chosen.count > 1 THEN 'repeated' END AS outcome, "
            f"chosen.count, last.count AS last_count, {self.chosen}::INTEGER AS chosen_round, "
            f"CASE WHEN {probes} > 0 THEN {total} END AS g_sum, "
            f"coalesce({', '.join([*reversed(before), 'NULL::DOUBLE'])}) AS g_last, "
            f"CASE WHEN {probes} > 0 THEN {by_round} END AS g_by_round, {probes} AS probes, "
            f"CASE WHEN {later_probes} > 0 THEN {later_total} END AS g_sum_later, "
            f"CASE WHEN {later_probes} > 0 THEN {later_by_round} END AS g_by_round_later"
        )
        joined = {"chosen": self._counts(self.chosen, rows), "last": self._counts(max(self.counts), rows)}
        return self._select(told, joined | {f"m{r}": self._g(r, rows) for r in self.metagradients}, rows)

    def _select(self, told: str, joined: dict[str, str], rows: Stretch) -> str:
        aside = "".join(f" POSITIONAL JOIN ({select}) AS {name}" for name, select in joined.items())
        # True of every row: it is for the optimizer, which passes over a stretch that a uid does not lie in.
        within = f" WHERE samples.uid BETWEEN '{rows.uids[0]}'::UUID AND '{rows.uids[1]}'::UUID" if rows.uids else ""
        columns, source = samples_select(self.samples)
        samples = rows.rows_of(source, columns)
        shown = f"{literal(self.run)} AS run, {told}, samples.* EXCLUDE (uid)"
        return f"SELECT {shown} FROM ({samples}) AS samples{aside}{within}"

    def _counts(self, number: int, rows: Stretch) -> str:
        """The counts of a round, or nulls."""
        known = number in self.counts
        return rows.rows_of(self.counts[number], "count") if known else "SELECT NULL::INTEGER AS count"

    def _g(self, number: int, rows: Stretch) -> str:
        """The g of a round, null where it was not probed."""
        if number not in self.metagradients:
            return "SELECT NULL::DOUBLE AS g"
        return rows.rows_of(self.metagradients[number], "CASE WHEN probed THEN g END AS g")


def _sums(names: Sequence[str]) -> tuple[str, str, str]:
    """How many of the named values there are, their sum, and a list of them in order."""
    probes = " + ".join(f"({name} IS NOT NULL)::BIGINT" for name in names) or "0::BIGINT"
    total = " + ".join(f"coalesce({name}, 0)" for name in names) or "0::DOUBLE"
    return probes, total, f"list_filter([{', '.join(names)}]::DOUBLE[], lambda x: x IS NOT NULL)"


def _text(uid: object) -> str:
    return uid.hex() if isinstance(uid, bytes) else str(uid)
