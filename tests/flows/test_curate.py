"""The flow itself, once, under the real Prefect engine and as a process of its own; and the command line around it, in
this process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.runtime import ensure_server
from testing.field_case import run
from testing.small_catalog import published, small_catalog


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, server_home: Path) -> Path:
    """A directory in whose `home` the small catalog was curated by the command line; its words are in `said`."""
    place = tmp_path_factory.mktemp("curated")
    url = ensure_server(server_home)
    command = [sys.executable, "-m", "flows.cli", "curate", str(small_catalog(place)), "--home", str(place / "home")]
    env = {**os.environ, "PREFECT_API_URL": url}
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    (place / "said").write_text(ended.stdout + ended.stderr)
    return place


def test_mgd_curate_runs_the_flow_and_gives_the_bytes_of_the_plain_calls(place: Path, curated_small: Path) -> None:
    said = (place / "said").read_text()
    assert "metagradient descent" in said and "oracle" in said
    assert "minutes from nothing" in said  # the cost is told before the work
    (directory,) = (place / "home" / "runs").iterdir()
    assert "<html" in (directory / "report.html").read_text()
    assert published(curated_small) == published(directory)


def test_the_other_commands_read_what_it_wrote(place: Path, tmp_path: Path) -> None:
    home = ["--home", str(place / "home")]
    listed = run(["runs", *home])
    assert listed.status == 0 and "3/3" in listed.out and "report.html" in listed.out
    asked = run(["sql", "select subset, mean from comparison where metric = 'acc1'", "--format", "csv", *home])
    assert asked.status == 0 and asked.out.startswith("subset,mean")
    out = tmp_path / "exported.npy"
    exported = run(["export", "--format", "datacomp", "--out", str(out), "--round", "1", *home])
    assert exported.status == 0, exported.said
    assert np.load(out).dtype == np.dtype("u8,u8") and "240 samples" in exported.out
    shards = run(["export", "--format", "webdataset", "--out", str(tmp_path / "shards"), "--shard-size", "50", *home])
    assert shards.status == 0 and (tmp_path / "shards" / "00000000.tar").exists()


QUICKLY = """
import sys
from flows.cli import main
status = main(sys.argv[1:])
print(status, [name for name in ("torch", "prefect", "open_clip") if name in sys.modules])
"""


def test_what_is_finished_is_seen_at_a_glance_and_where_the_home_was_moved_as_well(place: Path, tmp_path: Path) -> None:
    home = tmp_path / "moved"
    shutil.copytree(place / "home", home)
    words = [sys.executable, "-c", QUICKLY, "curate", str(place / "small.toml"), "--home", str(home)]
    model = place / "model.json"

    def asked() -> str:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
        assert "metagradient descent" in ended.stdout
        return ended.stdout.splitlines()[-1]

    assert asked() == "0 []"
    os.utime(model, ns=(model.stat().st_atime_ns, model.stat().st_mtime_ns + 1))
    assert "torch" in asked(), "it may be another model: the whole question is asked"
    assert asked() == "0 []", "and its answer is noted"


def test_what_is_finished_is_told_again_without_a_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    command = ["curate", str(place / "small.toml"), "--home", str(place / "home")]
    again = run(command)
    assert again.status == 0 and "metagradient descent" in again.out and "Prefect" not in again.err
    (directory,) = (place / "home" / "runs").iterdir()
    page = (directory / "report.html").rename(place / "kept.html")
    try:
        more = run(command)
    finally:
        page.rename(directory / "report.html")
    assert more.status == 1 and "no Prefect server answers there" in more.err, "something is left to do"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curate", "fasion"], "no catalog 'fasion'"),
        (["sql", "selekt 1"], "syntax error"),
        (["export", "--format", "datacomp", "--run", "nope"], "no run 'nope'"),
    ],
)
def test_a_users_mistake_ends_as_one_message(place: Path, arguments: list[str], message: str) -> None:
    ended = run([*arguments, "--home", str(place / "home")])
    assert ended.status == 1 and message in ended.err and not ended.crash


def test_a_failed_flow_ends_as_one_message(tmp_path: Path, prefect_api: str) -> None:
    catalog = small_catalog(tmp_path, ("learning_rate = 2e-3", "learning_rate = 1e30"))
    ended = run(["curate", str(catalog), "--home", str(tmp_path / "home")])
    assert ended.status == 1 and "Lower the learning rate" in ended.err and not ended.crash


@pytest.mark.parametrize("command", ["", "curate", "sql", "runs", "report", "export", "serve", "server"])
def test_every_command_has_help(command: str) -> None:
    ended = run([*filter(None, [command]), "--help"])
    assert ended.status == 0 and "--home" in ended.out
