"""Views read side by side give the rows of the views that join, in all stretches, and only where rows belong so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.tables import aligned_views, queries
from tasks.tables import published as tables
from tasks.tables import streams as table_streams
from tasks.tables.aligned_views import AlignedViews
from tasks.tables.published import publish
from tasks.tables.queries import connect

VIEWS = ("sample_rounds", "sample_outcomes", "movers", "g_by_style")


@pytest.fixture
def home(tmp_path: Path, rows: Callable[..., pa.Table], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty samples in row groups of seven, three rounds of g, of which the second probed some only, four of counts."""
    for module in (tables, table_streams):
        monkeypatch.setattr(module, "ROW_GROUP", 7)
    draw = np.random.default_rng(0)
    publish(tmp_path, "r-1", "samples", 0, rows("samples", 40, style=["a", "b", None, "d"] * 10))
    for number in range(4):
        publish(tmp_path, "r-1", "counts", number, rows("counts", 40, count=draw.integers(0, 3, 40)))
        if number < 3:
            probed = draw.random(40) < (0.5 if number == 1 else 0.9)
            g = np.where(probed, draw.normal(size=40), 0.0)
            publish(tmp_path, "r-1", "metagradients", number, rows("metagradients", 40, g=g, probed=probed))
    return tmp_path


def answers(home: Path, run: str = "r-1", where: str = "") -> dict[str, tuple[list, list]]:
    with connect(home, run) as connection:
        found = {}
        for view in VIEWS:
            result = connection.execute(f"SELECT * FROM {view} {where} ORDER BY ALL")
            # A mean is summed in any order.
            rounded = [tuple(round(x, 12) if isinstance(x, float) else x for x in row) for row in result.fetchall()]
            found[view] = ([(d[0], str(d[1])) for d in result.description], rounded)
        return found


@pytest.mark.parametrize("most", [1, 3, 16])
@pytest.mark.parametrize("chosen", [None, 1])
def test_side_by_side_the_rows_are_those_of_the_joins(
    most: int, chosen: int | None, home: Path, rows: Callable[..., pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    if chosen is not None:
        publish(home, "r-1", "choices", chosen, rows("choices"))
    monkeypatch.setattr(aligned_views, "MOST_STRETCHES", most)
    side_by_side = answers(home)
    some = "WHERE uid = '" + "11" * 16 + "'"
    monkeypatch.setattr(queries.AlignedViews, "of", lambda *_: None)
    joined = answers(home)
    for view in VIEWS:
        (names, ours), (others, theirs) = side_by_side[view], joined[view]
        assert names == others and ours == theirs and ours, view
    assert len(joined["sample_rounds"][1]) == 160 and len(joined["sample_outcomes"][1]) == 40
    monkeypatch.undo()
    with connect(home, "r-1") as connection:
        assert connection.execute(f"SELECT count(*), min(uid::VARCHAR) FROM sample_rounds {some}").fetchall()[0][0] == 4


def test_rows_that_do_not_belong_together_are_joined(home: Path, rows: Callable[..., pa.Table]) -> None:
    assert AlignedViews.of(home, "r-1") is not None
    publish(home, "r-1", "counts", 3, rows("counts", 39, count=[1] * 39))
    assert AlignedViews.of(home, "r-1") is None
    with connect(home, "r-1") as connection:
        assert connection.execute("SELECT count(*) FROM sample_rounds WHERE round = 3").fetchall() == [(39,)]


def test_several_runs_at_once_are_joined(home: Path, rows: Callable[..., pa.Table]) -> None:
    publish(home, "r-2", "samples", 0, rows("samples", 5, style=["a"] * 5))
    publish(home, "r-2", "counts", 0, rows("counts", 5))
    with connect(home, "all") as connection:
        found = connection.execute("SELECT run, count(*) FROM sample_rounds GROUP BY run ORDER BY run").fetchall()
    assert found == [("r-1", 160), ("r-2", 5)]
