"""Tables as lazy frames: what was published, by run and round, in the present names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.tables.published import TableError, files, publish, read
from tasks.tables.queries import QueryError
from tasks.tables.scan import scan
from tasks.tables.schemas import ROUNDS


@pytest.fixture
def home(tmp_path: Path, uid: Callable[[int], str]) -> Path:
    """Two runs: counts of two rounds each, and a row of rounds of the second."""
    home = tmp_path / "a [home]*"
    for run in ("one-1", "two-2"):
        for number in (0, 1):
            counts = {"uid": [uid(i) for i in range(4)], "count": [number, 1, 2, 3]}
            publish(home, run, "counts", number, pa.table(counts))
    figures = {field.name: 1.0 if pa.types.is_floating(field.type) else 1 for field in ROUNDS}
    publish(home, "two-2", "rounds", 0, pa.Table.from_pylist([figures]))
    return home


def test_a_table_is_scanned_by_run_and_round(home: Path, uid: Callable[[int], str]) -> None:
    frame = scan(home, "counts")
    assert isinstance(frame, pl.LazyFrame) and frame.collect_schema().names() == ["run", "round", "uid", "count"]
    assert frame.filter(pl.col("count") == 0).collect().rows() == [("two-2", 0, sorted(uid(i) for i in range(4))[0], 0)]
    assert scan(home, "counts", "one-1").select(pl.len()).collect().item() == 8
    every = scan(home, "counts", "all").group_by("run", "round").agg(pl.col("count").sum()).sort("run", "round")
    assert every.collect().rows() == [("one-1", 0, 6), ("one-1", 1, 7), ("two-2", 0, 6), ("two-2", 1, 7)]
    for row, same in zip(frame.collect().to_dicts(), read(home, "two-2", "counts").to_pylist(), strict=True):
        assert row == {"run": "two-2", **same, "uid": same["uid"].hex}


def test_a_file_of_an_earlier_version_has_the_present_columns(home: Path) -> None:
    path = files(home, "two-2", "rounds")[0]
    rows = pq.ParquetFile(path).read()
    names = ["distinct" if name == "distinct_samples" else name for name in rows.column_names]
    pq.write_table(rows.rename_columns(names).drop_columns(["target_n"]), path)
    (row,) = scan(home, "rounds").collect().to_dicts()
    assert row.keys() == {"run", "round", *ROUNDS.names}
    assert row["distinct_samples"] == 1 and row["target_n"] is None


def test_what_is_not_there_is_told(home: Path) -> None:
    with pytest.raises(QueryError, match="did you mean one-1"):
        scan(home, "counts", "one-2")
    with pytest.raises(TableError, match="one-1 has published no rounds yet"):
        scan(home, "rounds", "one-1")
    with pytest.raises(TableError, match="no table 'count'"):
        scan(home, "count")
