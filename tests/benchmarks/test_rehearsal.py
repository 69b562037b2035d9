"""The dress rehearsal of a DataComp submission, with 400 links and without DataComp's own scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rehearsal.__main__ import begun, taken
from benchmarks.rehearsal.official import Official
from benchmarks.rehearsal.steps import Fault, Steps, check
from flows.runtime import ensure_server


@pytest.fixture
def server(server_home: Path) -> Iterator[None]:
    """The session's Prefect server, for commands in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", ensure_server(server_home))
        yield


@pytest.mark.slow
def test_the_whole_way_of_a_submission(server: None, tmp_path: Path) -> None:
    steps = taken(begun(tmp_path, True, []), Official(None, sys.executable))
    assert [one for one in steps.done if one.status == "failed"] == []
    assert {one.name for one in steps.done if one.status == "not run"} == {
        one.name for one in steps.done if one.official
    }
    assert steps.count("ok") == 11


def test_a_step_that_fails_stops_those_that_need_it(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    first = steps.take("first", lambda: str(check(1 == 2, "1 is not 2")))
    steps.take("second", lambda: "done", [first])
    third = steps.take("third", lambda: str(1 // 0), official=True)
    assert [(one.status, one.told.splitlines()[-1]) for one in steps.done] == [
        ("failed", "1 is not 2"),
        ("not run", "needs 'first', which failed"),
        ("failed", "ZeroDivisionError: integer division or modulo by zero"),
    ]
    assert (steps.count("failed"), steps.count("failed", official=True)) == (2, 1) and third.official
    assert "1 is not 2" in capsys.readouterr().out
    with pytest.raises(Fault):
        check(False, "no")
