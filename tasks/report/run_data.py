"""Run data: what a report may say about a run, all of it asked in SQL of the run's tables and views.

Every number of the page is the answer to a query that the page shows, so a reader can ask again and go on from there.
Costs a pass over the counts, metagradients and samples for each question.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from tasks.files.artefacts import read_json
from tasks.homes.working_copies import at_hand
from tasks.pool.record import load_pool
from tasks.report.results import chosen_evaluations, measured, paired_differences, result_table
from tasks.tables.run_folders import chosen_round

SEEN_BY_TILES = ("shard", "image_offset", "image_size", "image_format", "width", "height")
TRUTHS = ("truth_clean", "truth_text")
JUDGED = {"pairs": "caption"}
"""What the truth speaks of, by kind of samples, where that is a part of the sample."""


@dataclass(frozen=True)
class RunData:
    """A run's tables, open for questions, and its record (empty if the run directory is not there)."""

    home: Path
    run: str
    connection: duckdb.DuckDBPyConnection

    def ask(self, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a query, by column name."""
        cursor = self.connection.execute(sql, parameters or [])
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def ask_samples(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query that has a uid column, with what a tile needs of each sample added."""
        rows = self.ask(sql)
        columns = ", ".join(("uid", *SEEN_BY_TILES, *self.truths))
        uids = [[str(row["uid"]) for row in rows]]
        found = self.ask(f"SELECT {columns} FROM samples WHERE uid IN (SELECT unnest(?::UUID[]))", uids)
        by_uid = {row["uid"]: row for row in found}
        return [row | by_uid[row["uid"]] for row in rows]

    @cached_property
    def directory(self) -> Path:
        """The run's directory, there or not."""
        return self.home / "runs" / self.run

    @cached_property
    def record(self) -> dict[str, Any]:
        """What the run wrote of itself when it began; empty if it has not."""
        path = self.directory / "run.json"
        return dict(read_json(path)) if path.exists() else {}

    @cached_property
    def descent(self) -> dict[str, Any]:
        """The catalog's options of the descent; empty if unknown."""
        return dict(self.record.get("catalog", {}).get("descent", {}))

    @cached_property
    def pool_directory(self) -> Path | None:
        """Where relative shards lie, or None when the record does not tell."""
        if "pool_id" not in self.record:
            return None
        directory = self.home / "pools" / str(self.record["pool_id"])
        at_hand(directory)
        return directory

    @cached_property
    def chosen(self) -> int | None:
        """The chosen round, or None."""
        return chosen_round(self.home, self.run)

    @cached_property
    def sample_columns(self) -> set[str]:
        """Columns of the samples table."""
        return {row["column_name"] for row in self.ask("SELECT column_name FROM columns WHERE table_name = 'samples'")}

    @cached_property
    def kind(self) -> str:
        """What the samples are, as the pool's record says; where that is gone, by whether they have pictures."""
        pool = load_pool(self.pool_directory) if self.pool_directory else None
        if pool is not None:
            return pool.samples_kind
        return "texts" if self.ask("SELECT 1 FROM samples WHERE image_size IS NULL LIMIT 1") else "pairs"

    @cached_property
    def judged(self) -> str:
        """What the truth speaks of, where it is known."""
        return JUDGED.get(self.kind, "sample")

    @cached_property
    def truths(self) -> tuple[str, ...]:
        """Those of the truth's columns that the pool has; none where what it calls so is no true and false."""
        asked = "SELECT 1 FROM columns WHERE table_name = 'samples' AND column_name = ? AND type = 'BOOLEAN'"
        return tuple(name for name in TRUTHS if name in self.sample_columns) if self.ask(asked, [TRUTHS[0]]) else ()

    @cached_property
    def knows_truth(self) -> bool:
        """Whether the pool tells for any sample if its caption is right."""
        return "truth_clean" in self.truths and bool(
            self.ask("SELECT 1 FROM samples WHERE truth_clean IS NOT NULL LIMIT 1")
        )

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """One row a finished round."""
        return self.ask("SELECT * FROM rounds_summary ORDER BY round")

    @cached_property
    def agreement(self) -> list[dict[str, Any]]:
        """Precision, recall and AUC against the truth, a row a round; empty where nobody knows it."""
        return self.ask("SELECT * FROM truth_agreement ORDER BY round") if self.knows_truth else []

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """The test evaluations, a row a subset, seed, task and metric."""
        return chosen_evaluations(self.home, self.run)

    @cached_property
    def differences(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """How far the chosen subset is ahead, by (subset, task, metric)."""
        return paired_differences(self.home, self.run)

    @cached_property
    def measures(self) -> list[tuple[str, str]]:
        """(task, metric) pairs of the evaluations, in the order of the page."""
        return measured(self.evaluations, self.home, self.run)

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """The result table."""
        return result_table(self.home, self.run)
