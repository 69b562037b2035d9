"""Versions: what a newer program wrote is told by name, and neither it nor what is damaged takes other runs along."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.files.artefacts import publish_json
from tasks.files.package_data import product
from tasks.tables import schemas
from tasks.tables.published import NewerTable, files, publish, read, runs
from tasks.tables.queries import QueryError, connect, left_out
from tasks.tables.query_output import run_sql
from tasks.tables.run_folders import latest_run
from tasks.tables.scan import scan

Rows = Callable[..., pa.Table]


def listed(home: Path, run: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the list of a run's tables says."""
    path = home / "tables" / "_manifests" / f"{run}.json"
    content = json.loads(path.read_text())
    change(content)
    publish_json(path, content)


def ask(home: Path, query: str, run: str | None = None) -> list[tuple[Any, ...]]:
    with connect(home, run) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def home(small_run: Path, rows: Rows) -> Path:
    """A home with the runs `small-1` and `other-1`."""
    publish(small_run, "other-1", "samples", 0, rows("samples"))
    for number in (0, 1):
        publish(small_run, "other-1", "counts", number, rows("counts", count=[1, 0, 2, number]))
    return small_run


def test_who_wrote_a_part_is_listed_and_changes_no_byte_of_it(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "r-1", "counts", 0, rows("counts"))
    path = tmp_path / "tables/_manifests/r-1.json"
    entry = json.loads(path.read_text())["tables"]["counts"]["0"]
    assert (entry["schema"], entry["mgd"]) == (1, product())
    before, stamp = files(tmp_path, "r-1", "counts")[0].read_bytes(), path.stat().st_mtime_ns
    monkeypatch.setattr("tasks.tables.published.product", lambda: "99.9")
    publish(tmp_path, "r-1", "counts", 0, rows("counts"))
    assert path.stat().st_mtime_ns == stamp, "equal rows again change nothing, whoever publishes them"
    publish(tmp_path / "newer", "r-1", "counts", 0, rows("counts"))
    assert files(tmp_path / "newer", "r-1", "counts")[0].read_bytes() == before
    monkeypatch.setitem(schemas.VERSIONS, "counts", 2)
    publish(tmp_path, "r-1", "counts", 0, rows("counts"))
    entry = json.loads(path.read_text())["tables"]["counts"]["0"]
    assert (entry["schema"], entry["mgd"]) == (2, "99.9"), "written anew, it is of the schema as it is now"


def test_a_newer_table_of_a_run_is_told_and_the_others_answer(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed(home, "small-1", lambda content: content["tables"]["counts"]["2"].update(schema=7, mgd="9.1"))
    with connect(home, "small-1") as connection:
        assert connection.execute("SELECT count(*) FROM metagradients").fetchall() == [(8,)]
        (told,) = left_out(connection)
        missing = dict(connection.execute("SELECT name, missing FROM views WHERE kind = 'view'").fetchall())
    assert told.startswith("run small-1 is left out: counts of run small-1: version 7, written by mgd 9.1")
    assert missing["sample_outcomes"].startswith("left out: ") and missing["comparison"] is None
    with pytest.raises(NewerTable, match=r"counts of run small-1: version 7, written by mgd 9\.1"):
        read(home, "small-1", "counts")
    out = io.StringIO()
    with pytest.raises(QueryError, match="counts"):
        run_sql(home, "SELECT * FROM counts", "small-1", out)
    assert "written by mgd 9.1" in capsys.readouterr().err

    everything = "SELECT run, sum(count)::INTEGER FROM counts GROUP BY run"
    assert ask(home, everything, "all") == [("other-1", 7)]
    assert ask(home, "SELECT count(DISTINCT run) FROM samples", "all") == [(2,)]
    assert scan(home, "counts", "other-1").select(pl.col("count").sum()).collect().item() == 7
    with pytest.warns(UserWarning, match=r"written by mgd 9\.1"):
        rest = scan(home, "counts", "all")
    assert rest.select(pl.col("run").unique()).collect()["run"].to_list() == ["other-1"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a list of a newer version": lambda home: listed(home, "small-1", lambda content: content.update(version=2)),
    "a list of none": lambda home: listed(home, "small-1", lambda content: content.update(version=0)),
    "a list that is cut": lambda home: (home / "tables/_manifests/small-1.json").write_text('{"version": 1, "ta'),
    "a list without tables": lambda home: listed(home, "small-1", lambda content: content.pop("tables")),
    "a list of something else": lambda home: (home / "tables/_manifests/small-1.json").write_text("[]"),
    "a part that is cut": lambda home: os.truncate(files(home, "small-1", "counts")[1], 100),
    "a part that is gone": lambda home: files(home, "small-1", "counts")[1].unlink(),
    "a part of something else": lambda home: files(home, "small-1", "counts")[1].write_bytes(bytes(range(256)) * 9),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_one_run_that_cannot_be_read_does_not_blind_the_home(damage: str, home: Path) -> None:
    DAMAGE[damage](home)
    with connect(home, "all") as connection:
        totals = dict(connection.execute("SELECT run, sum(count)::INTEGER FROM counts GROUP BY run").fetchall())
        (told,) = left_out(connection)
        for (name,) in connection.execute('SELECT "name" FROM views WHERE missing IS NULL').fetchall():
            connection.execute(f'SELECT * FROM "{name}"').fetchall()
    assert totals["other-1"] == 7 and told.startswith("run small-1 is left out: ") and "small-1" in told[26:]
    assert totals.get("small-1", 0) in (0, 8), "of the parts that are left, every row"
    assert ask(home, "SELECT sum(count)::INTEGER FROM counts", "other-1") == [(7,)]
    with pytest.warns(UserWarning, match="small-1"):
        rest = scan(home, "counts", "all").collect()
    assert rest.filter(pl.col("run") == "other-1")["count"].sum() == 7


def test_a_column_that_is_not_there_is_null_in_it_and_told_of_others(home: Path) -> None:
    path = files(home, "small-1", "metagradients")[0]
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["visits"]), path)
    rows = "SELECT round, count(visits), count(g) FROM metagradients GROUP BY round ORDER BY round"
    assert ask(home, rows, "all") == [(0, 0, 4), (1, 4, 4)]


def test_the_latest_run_is_the_one_that_began_or_published_last(home: Path, rows: Rows) -> None:
    def at(second: int, run: str, name: str | None = None) -> None:
        path = home / "tables/_manifests" / f"{run}.json" if name is None else home / "runs" / run / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        os.utime(path, (second, second))

    at(10, "small-1", "run.json")
    at(20, "other-1", "run.json")
    at(30, "other-1")
    at(40, "small-1")
    which = "SELECT DISTINCT run FROM samples"
    assert latest_run(home) == runs(home)[-1] == "small-1" and ask(home, which) == [("small-1",)]
    at(50, "other-1", "run.json")  # begun again, with another test, say
    assert latest_run(home) == runs(home)[-1] == "other-1" and ask(home, which) == [("other-1",)]
    at(60, "new-1", "run.json")
    assert latest_run(home) == "new-1"
    with pytest.raises(QueryError, match=r"run new-1 was begun and has published nothing yet; .*small-1, other-1"):
        connect(home)
    assert len(ask(home, which, "all")) == 2
