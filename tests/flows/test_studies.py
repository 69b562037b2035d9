"""The commands that study a classifier, under the real Prefect engine."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from flows.cli import main
from testing.small_study import small_study


def test_attribute_and_predict(tmp_path: Path, prefect_api: str, capsys: pytest.CaptureFixture[str]) -> None:
    study, home = str(small_study(tmp_path)), tmp_path / "home"
    assert main(["attribute", study, "--validate", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert "10 outputs of small-" in said and "worst output" in said
    (page,) = home.glob("studies/*/report.html")
    told = page.read_text()
    assert "Do influences predict?" in told and told.count("<img ") > 80 and "Not asked yet: mgd poison." in told
    units = sorted((home / "studies").glob("*/work/attribution/*"))
    written = [path.stat().st_mtime_ns for path in units]
    assert main(["attribute", study, "--home", str(home)]) == 0, "again, and nothing is done twice"
    assert [path.stat().st_mtime_ns for path in units] == written
    capsys.readouterr()
    assert (
        main(
            [
                "predict",
                "select uid from influences where output = 'shirt' order by g desc limit 3",
                "--home",
                str(home),
            ]
        )
        == 0
    )
    assert "without 3 of 60 training samples" in capsys.readouterr().out


def test_mistakes_are_told_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(small_study(tmp_path, ("width = 8", "width = 8\ndropout = 0.5")))
    assert main(["attribute", study, "--home", str(tmp_path / "home")]) == 1
    assert "destroy the metagradient" in capsys.readouterr().err and not (tmp_path / "home").exists()


def test_schedule(tmp_path: Path, prefect_api: str, capsys: pytest.CaptureFixture[str]) -> None:
    study, home = str(small_study(tmp_path)), tmp_path / "home"
    assert main(["schedule", study, "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert "descent" in said and "grid" in said
    (page,) = home.glob("studies/*/report.html")
    assert "<polyline" in page.read_text()
    (picture,) = home.glob("studies/*/schedule.svg")
    drawn = ElementTree.parse(picture).getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg", "a file that viewers take"
    assert len(drawn.findall("{*}polyline")) == 4, "the flat one, two steps, the best one-cycle"
    capsys.readouterr()
    assert main(["sql", "select count(*) as n from schedules where schedule = 'descent'", "--home", str(home)]) == 0
    assert str(3 * 6) in capsys.readouterr().out


def test_poison(tmp_path: Path, prefect_api: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("share = 0.1\nsteps = 2", "share = 0.1\nsteps = 1\ncancel_steps = 2\ncancel_budgets = [0.3]")
    study, home = str(small_study(tmp_path, changes)), tmp_path / "home"
    assert main(["poison", study, "--home", str(home)]) == 0
    said = capsys.readouterr().out
    (page,) = home.glob("studies/*/report.html")
    assert "After it, the most harmful first" in page.read_text()
    assert "6 changed samples" in said and all(said.count(name) >= 2 for name in ("mgd", "noise", "flips", "cancel"))
