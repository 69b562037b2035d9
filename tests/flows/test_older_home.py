"""A home as an earlier version left it (of 21 November 2026: tables, manifests, records and shards of a small run) is
read by every command that reads."""

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from flows.cli import main
from tasks.files.package_data import product
from tasks.pool.index_jobs import PoolError
from tasks.pool.record import load_pool
from tasks.runs.run import Run, RunMismatch
from tasks.tables.published import read
from tests.flows.broken_inputs import finished_home

ROOT = Path(__file__).resolve().parents[1]
RUN = "small-83661b07"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with tarfile.open(ROOT / "fixtures" / "home-of-november-2026.tar.xz") as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path / "home"


def told(home: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--home", str(home)]) == 0
    return capsys.readouterr().out


def rows(home: Path, capsys: pytest.CaptureFixture[str], question: str) -> list[dict[str, object]]:
    return [dict(row) for row in json.loads(told(home, capsys, "sql", question, "--format", "json"))]


def test_its_runs_are_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = told(home, capsys, "runs").splitlines()[1].split()
    assert listed[0] == RUN and re.fullmatch(r"\d{4}-\d\d-\d\d", listed[1])
    assert listed[3] == "KiB" and listed[4:7] == ["2/2", "0", "2.301"]


def test_its_tables_answer_under_todays_names(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rounds = rows(home, capsys, "SELECT round, distinct_samples, total, smoothness, heldout_n FROM rounds_summary")
    shared = {"total": 240, "smoothness": None, "heldout_n": None}  # what that version did not write yet is null
    assert rounds == [{"round": 0, "distinct_samples": 240, **shared}, {"round": 1, "distinct_samples": 218, **shared}]
    counts = rows(home, capsys, "SELECT round, sum(count) AS total FROM counts GROUP BY round ORDER BY round")
    assert [row["total"] for row in counts] == [240, 240]
    (moved,) = rows(home, capsys, "SELECT count(*) AS n FROM metagradients WHERE probed AND g IS NOT NULL")
    assert moved["n"] == 111


def test_its_report_is_written_with_pictures_of_its_shards(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(told(home, capsys, "report").strip()).read_text()
    assert "clip_filter" in page and page.count("data:image/") > 10


@pytest.mark.parametrize("form", ["datacomp", "parquet", "webdataset"])
@pytest.mark.parametrize("number", ["0", "1"])
def test_its_subsets_are_exported(home: Path, capsys: pytest.CaptureFixture[str], form: str, number: str) -> None:
    out = home / "export"
    assert "240 samples" in told(home, capsys, "export", "--format", form, "--out", str(out), "--round", number)
    if form == "datacomp":
        counts = read(home, RUN, "counts", int(number))["count"].to_numpy()
        assert len(np.load(out)) == counts.sum()


def test_its_subsets_are_operands(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = home / "one.npy"
    found = told(home, capsys, "subset", f'run(id="{RUN}", round=1)', "--run", RUN, "--out", str(out))
    assert "218 of 240 samples, 90.8% (240 with copies, at most 2 of one)" in found and len(np.load(out)) == 240


def test_what_its_catalog_calls_otherwise_today_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curate", str(home / "runs" / RUN / "catalog.toml"), "--home", str(home)]) == 1
    said = capsys.readouterr().err
    assert "'descent.memory'; it is now called 'descent.momentum'" in said and "is now 'own_clip_filter'" in said


def test_a_curation_is_not_continued_with_other_bits_but_told(home: Path) -> None:
    record = json.loads((home / "runs" / RUN / "run.json").read_text())
    run = Run.load(home / "runs" / RUN)
    now = {"environment": {**record["environment"], "torch": "2.13.0"}, "versions": record["versions"]}
    run.check_same(record)
    with pytest.raises(RunMismatch, match=r"torch was '2\.12\.1\+cu130', is '2\.13\.0'.*another --home"):
        run.check_same(now)


def test_what_it_would_make_again_is_pruned_and_its_tables_stay(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "SELECT sum(count)::INTEGER AS n FROM counts"
    before = rows(home, capsys, asked)
    assert "0 bytes can go" in told(home, capsys, "prune"), "the run is not finished: its work is wanted"
    told(home, capsys, "report")
    assert f"runs/{RUN}/work" in told(home, capsys, "prune", "--yes")
    assert not (home / "runs" / RUN / "work").exists() and rows(home, capsys, asked) == before
    assert f"removed {RUN}" in told(home, capsys, "remove", RUN) and "no runs" in told(home, capsys, "runs")


def newer(home: Path) -> str:
    """A second run beside the first as a later version would leave it, with a record and tables of later forms."""
    other = home / "runs" / "later-1"
    other.mkdir()
    record = json.loads((home / "runs" / RUN / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**record, "format": 2, "mgd": "9.1", "catalog": {"all": "changed"}}))
    listed = json.loads((home / "tables" / "_manifests" / f"{RUN}.json").read_text())
    (home / "tables" / "_manifests" / "later-1.json").write_text(json.dumps({**listed, "version": 2, "mgd": "9.1"}))
    return other.name


def test_a_newer_run_beside_it_is_told_and_hides_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = newer(home)
    first, second = told(home, capsys, "runs").splitlines()[1:]
    assert first.startswith(later) and "(newer: " in first and "written by mgd 9.1" in first and RUN in second
    counts = "SELECT run, sum(count)::INTEGER AS n FROM counts GROUP BY run"
    assert main(["sql", counts, "--run", "all", "--format", "json", "--home", str(home)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == [{"run": RUN, "n": 480}] and f"run {later} is left out" in said.err
    for command in (["sql", "from counts"], ["report"], ["export", "--format", "datacomp"]):
        assert main([*command, "--home", str(home)]) == 1, "the latest run is the newer one"
        assert "9.1" in (error := capsys.readouterr().err) and "later-1" in error, command
        assert told(home, capsys, *command, "--run", RUN)
    told(home, capsys, "prune")
    assert f"removed {RUN}" in told(home, capsys, "remove", RUN)
    assert f"removed {later}" in told(home, capsys, "remove", later)
    assert "no runs" in told(home, capsys, "runs")


def test_a_damaged_run_keeps_its_pool_from_being_pruned(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "runs" / RUN / "run.json").write_text("{")
    assert "pools/" not in told(home, capsys, "prune", "--yes") and list((home / "pools").glob("*/pool.json"))


def test_a_record_of_today_says_who_wrote_it(tmp_path: Path) -> None:
    home = finished_home(tmp_path)
    (run,) = (json.loads(path.read_text()) for path in home.glob("runs/*/run.json"))
    (pool,) = (json.loads(path.read_text()) for path in home.glob("pools/*/pool.json"))
    assert (run["format"], run["mgd"], pool["mgd"]) == (1, product(), product())
    (path,) = home.glob("pools/*/pool.json")
    path.write_text(json.dumps({**pool, "mgd": "9.1", "shape": "round"}))
    with pytest.raises(PoolError, match=r"pool\.json: not a record of this version, but of mgd 9\.1 \(shape"):
        load_pool(path.parent)
