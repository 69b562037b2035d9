"""Runs and leftovers go, wholly and on request only."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from flows.cli import main
from flows.runtime.locks import try_lock
from flows.runtime.session import alone
from tasks.files.artefacts import publish_json, read_json
from tasks.runs import housekeeping, listing
from tasks.runs.housekeeping import leftovers, remove_run, size_of
from tasks.tables.published import runs
from tasks.tables.run_folders import run_directories


@pytest.fixture
def home(curated_small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(curated_small.parents[1], tmp_path / "home"))


def test_a_removed_run_leaves_nothing_but_its_pool(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = run_directories(home)
    before = size_of(home)
    assert main(["remove", run.name, "--home", str(home)]) == 0
    assert "MiB" in capsys.readouterr().out and size_of(home) < before
    assert not run.exists() and runs(home) == [] and not list((home / "tables").glob("*/run=*"))
    assert list((home / "pools").iterdir()), "another run may be of it"
    assert main(["runs", "--home", str(home)]) == 0 and "no runs" in capsys.readouterr().out
    assert main(["remove", run.name, "--home", str(home)]) == 1 and "no run" in capsys.readouterr().err


def test_a_run_that_another_began_from_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = run_directories(home)
    record = read_json(run / "run.json")
    record["catalog"]["descent"]["start"] = f'run(id="{run.name}")'
    (home / "runs" / "later-1").mkdir()
    publish_json(home / "runs" / "later-1" / "run.json", record)
    assert main(["remove", run.name, "--home", str(home)]) == 1
    assert "later-1 began from it" in capsys.readouterr().err and run.exists()
    remove_run(home, "later-1")
    remove_run(home, run.name)


def test_nothing_goes_while_something_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = run_directories(home)
    held = try_lock(home / ".locks" / "sessions" / "one.session")
    assert held is not None
    for command in (["remove", run.name], ["prune", "--yes"]):
        assert main([*command, "--home", str(home)]) == 1 and "is at work there" in capsys.readouterr().err
    os.close(held)
    held = try_lock(home / ".locks" / "runs" / f"{run.name}.lock")
    assert held is not None
    assert main(["remove", run.name, "--home", str(home)]) == 1, "a flow works on it, with no session"
    os.close(held)
    assert main(["remove", run.name, "--home", str(home)]) == 0


def test_what_a_command_works_on_is_not_removed_and_what_begins_waits_for_a_removal(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = run_directories(home)
    begun, go = threading.Event(), threading.Event()

    def exporting(*_: object) -> str:
        begun.set()
        assert go.wait(20)
        return "exported"

    monkeypatch.setattr(listing, "export_run", exporting)
    words = ["export", "--format", "datacomp", "--home", str(home)]
    command = threading.Thread(target=main, args=(words,))
    command.start()
    assert begun.wait(20)
    assert main(["remove", run.name, "--home", str(home)]) == 1 and run.exists()
    assert "is at work there" in capsys.readouterr().err
    go.set()
    command.join(20)
    begun.clear()
    with alone(home):
        command = threading.Thread(target=main, args=(words,))
        command.start()
        assert not begun.wait(0.5)
    assert begun.wait(20)
    command.join(20)
    log = (home / "logs" / "mgd.log").read_text()
    assert "mgd export --format datacomp" in log and "is at work there" in log


def test_nothing_is_made_where_there_is_no_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["remove", "x"], ["prune", "--yes"], ["curate", "wrongname"], ["report"]):
        main([*command, "--home", str(tmp_path / "none")])
    assert not list(tmp_path.iterdir())


def test_an_interrupted_removal_is_finished_by_the_next(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = run_directories(home)
    with monkeypatch.context() as patch:
        patch.setattr(housekeeping.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remove_run(home, run.name)
    assert runs(home) == [], "what is half gone is not listed"
    remove_run(home, run.name)
    for one in [one for one in leftovers(home) if "interrupted" in one.what]:
        housekeeping.delete([one])
    assert not run.exists() and not list(home.rglob("*.removed"))


def test_prune_says_what_would_go_and_deletes_when_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = run_directories(home)
    (run / "report.html").write_text("done")
    tables = {path: path.read_bytes() for path in (home / "tables").rglob("*.parquet")}
    assert main(["prune", "--home", str(home)]) == 0
    told = capsys.readouterr().out
    assert (
        f"runs/{run.name}/work" in told
        and all(what in told for what in housekeeping.MADE_OF_POOLS.values())
        and "--yes deletes them" in told
    )
    assert (run / "work").exists()
    assert main(["prune", "--older-than", "1d", "--yes", "--home", str(home)]) == 0
    assert (run / "work").exists(), "it is of today"
    assert main(["prune", "--yes", "--home", str(home)]) == 0
    assert not (run / "work").exists()
    assert not [made for pattern in housekeeping.MADE_OF_POOLS for made in (home / "pools").glob(f"*/{pattern}")]
    assert tables == {path: path.read_bytes() for path in (home / "tables").rglob("*.parquet")}
    assert list((home / "pools").glob("*/shards")), "the run's pool stays"


def test_the_oldest_go_until_the_home_is_small_enough() -> None:
    found = [housekeeping.Leftover(Path(name), "", used, 100) for name, used in (("b", 2.0), ("a", 1.0), ("c", 3.0))]
    chosen = housekeeping.to_go(found, None, 1000, 850, now=time.time())
    assert [one.path.name for one in chosen] == ["a", "b"]


@pytest.mark.parametrize(("option", "text"), [("--older-than", "soon"), ("--to", "much")])
def test_ages_and_sizes_are_explained(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prune", option, text])
    assert "such as" in capsys.readouterr().err
