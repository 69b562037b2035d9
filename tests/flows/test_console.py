"""No command is silent for long, and a resumed one says what is left."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest

from flows import console
from flows.cli import main
from flows.runtime.server import ServerStatus, format_status
from tasks.curation import estimate
from tasks.curation.step_costs import StepCosts
from tasks.files.progress import announce, begin, say, watch
from tasks.modality.registry import open_recipe
from tasks.runs.listing import format_runs
from tasks.tables.published import publish
from tests.flows.broken_inputs import finished_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return finished_home(tmp_path)


def test_work_that_nobody_can_count_is_told_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "SILENCE", 0.1)
    monkeypatch.setattr(console, "LINE_EVERY", 0.1)
    with console.shown_progress():
        begin("read the pool")
        deadline = time.monotonic() + 20
        told = ""
        while told.count("read the pool ... ") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
            told += capsys.readouterr().err
        announce("train", 3, 3)
        say("done with it")
    assert told.splitlines()[0].endswith("read the pool ...") and "s so far" in told
    rest = capsys.readouterr().err
    assert "train 3/3" in rest and "done with it" in rest
    time.sleep(0.7)
    assert capsys.readouterr().err == "", "nothing is told after the end"


def test_a_resume_says_what_is_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "measure", lambda _: StepCosts(step=60.0, reverse=120.0, state_bytes=1))
    (directory,) = (home / "runs").iterdir()

    def told() -> str:
        said: list[str] = []
        watch(lambda what, *_: said.append(what))
        try:
            estimate.prepare(directory)
        finally:
            watch(None)
        return "\n".join(said)

    with open_recipe(directory) as recipe:
        first = told()
        assert "2 rounds: 9 trainings of 8 steps" in first and "minutes from nothing" in first
        round_row = dict.fromkeys(("target_loss", "target_accuracy", "heldout_loss", "heldout_accuracy"), 0.5)
        round_row |= dict.fromkeys(("train_loss", "temperature"), 0.5)
        whole = ("advances", "reverse_steps", "peak_states", "peak_bytes", "distinct", "total", "probed")
        round_row |= dict.fromkeys((*whole, "raised", "lowered"), 1)
        for number in range(2):
            publish(home, directory.name, "rounds", number, pa.Table.from_pylist([round_row]))
        later = told()
        assert "2 rounds, 2 done: 7 trainings" in later and "0 reverse steps" in later and "minutes are left" in later
        publish(home, directory.name, "rounds", 2, pa.Table.from_pylist([round_row]))
        for name in recipe.catalog.comparison.subsets:
            recipe.run.work("comparison", f"{name}-1.json").write_text("{}")
        assert "every round and training of the comparison is done" in told()
    assert "3/3" in format_runs(home)


def test_a_run_that_was_only_begun_is_told_alike_by_every_command(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory,) = (home / "runs").iterdir()
    (home / "tables" / "_manifests" / f"{directory.name}.json").unlink()
    assert "only begun: nothing to report" in format_runs(home)
    for words in (["report"], ["report", "--run", directory.name]):
        assert main([*words, "--home", str(home)]) == 1
    told = capsys.readouterr().err
    assert "has published nothing yet; go on with it by `mgd curate`" in told and "no run '" not in told


def test_a_run_whose_record_is_damaged_does_not_hide_the_others(home: Path) -> None:
    (directory,) = (home / "runs").iterdir()
    other = home / "runs" / "other-1"
    other.mkdir()
    (other / "run.json").write_text("{}")
    assert "(damaged: " in format_runs(home) and f"\n{directory.name} " in format_runs(home)


def test_the_state_of_the_server_is_told_in_words(tmp_path: Path) -> None:
    off = ServerStatus(running=False, url=None, pid=None, log=tmp_path / "none")
    assert format_status(off) == "no local server is running here; a command that needs one starts it"
    on = ServerStatus(running=True, url="http://127.0.0.1:1/api", pid=7, log=tmp_path / "none")
    assert format_status(on) == "running at http://127.0.0.1:1 (process 7)"
