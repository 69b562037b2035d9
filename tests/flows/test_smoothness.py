"""The gate of `curate` and the command `smoothness`, once, under the real Prefect engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.cli import main
from tasks.files.artefacts import read_json
from testing.small_catalog import small_catalog

CHANGES = (
    ("window_start = 4\n", "window_start = 2\n"),
    ("[comparison]", "[smoothness]\nbar = 1.0\n[smoothness.menu]\nwindow_start = [6]\n[comparison]"),
)


def test_below_the_bar_a_curation_stops_before_round_0_and_the_command_says_more(
    tmp_path: Path, prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, home = str(small_catalog(tmp_path, *CHANGES)), tmp_path / "home"
    assert main(["curate", catalog, "--home", str(home)]) == 1
    told = capsys.readouterr().err
    assert re.search(r"S = 0\.\d+ .*below its bar of 1: .*larger learner.eps_root \(now 1e-08\)", told)
    assert "smoothness of the recipe along 2 directions: 32 training steps" in told, "the cost is told"
    (run,) = (home / "runs").iterdir()
    listed = read_json(home / "tables" / "_manifests" / f"{run.name}.json")["tables"]
    assert "smoothness" in listed and "rounds" not in listed and not (run / "work" / "round-000").exists()

    assert main(["smoothness", catalog, "--sweep", "--lds", "3", "--home", str(home)]) == 3
    said = capsys.readouterr()
    rows = said.out.splitlines()
    assert rows[1].startswith("as it is") and rows[2].startswith("window_start = 6") and "largest |g|" in said.out
    assert rows[0].endswith("LDS") and "below the catalog's bar of 1" in said.err
    assert (run / "work" / "round-000" / "replayed.json").exists(), "in the run that the gate began"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["emoji", "--sweep"], "[smoothness.menu]"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["smoothness", *arguments, "--home", str(tmp_path / "home")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "home").exists()
