"""The flow itself, once, under the real Prefect engine; and the command line around it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.runtime import ensure_server
from testing.small_catalog import curate_plainly, published, small_catalog


def mgd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, server_home: Path) -> Path:
    """A directory in whose `home` the small catalog was curated by the command line; its words are in `said`."""
    place = tmp_path_factory.mktemp("curated")
    url = ensure_server(server_home)
    ended = mgd("curate", str(small_catalog(place)), "--home", str(place / "home"), PREFECT_API_URL=url)
    assert ended.returncode == 0, ended.stderr
    (place / "said").write_text(ended.stdout + ended.stderr)
    return place


@pytest.mark.xdist_group("curate")
def test_mgd_curate_runs_the_flow_and_gives_the_bytes_of_the_plain_calls(place: Path, tmp_path: Path) -> None:
    said = (place / "said").read_text()
    assert "metagradient descent" in said and "oracle" in said
    assert "minutes from nothing" in said  # the cost is told before the work
    (run,) = (place / "home" / "runs").iterdir()
    assert "<html" in (run / "report.html").read_text()
    assert published(curate_plainly(small_catalog(tmp_path), tmp_path / "home")) == published(run)


@pytest.mark.xdist_group("curate")
def test_the_other_commands_read_what_it_wrote(place: Path) -> None:
    home = ["--home", str(place / "home")]
    listed = mgd("runs", *home)
    assert listed.returncode == 0 and "3/3" in listed.stdout and "report.html" in listed.stdout
    asked = mgd("sql", "select subset, mean from comparison where metric = 'acc1'", "--format", "csv", *home)
    assert asked.returncode == 0 and asked.stdout.startswith("subset,mean")
    out = place / "exported.npy"
    exported = mgd("export", "--format", "datacomp", "--out", str(out), "--round", "1", *home)
    assert exported.returncode == 0, exported.stderr
    assert np.load(out).dtype == np.dtype("u8,u8") and "240 samples" in exported.stdout
    shards = mgd("export", "--format", "webdataset", "--out", str(place / "shards"), "--shard-size", "50", *home)
    assert shards.returncode == 0 and (place / "shards" / "00000000.tar").exists()


@pytest.mark.xdist_group("curate")
def test_what_is_finished_is_told_again_without_a_server(place: Path) -> None:
    nobody = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    again = mgd("curate", str(place / "small.toml"), "--home", str(place / "home"), **nobody)
    assert again.returncode == 0 and "metagradient descent" in again.stdout and "Prefect" not in again.stderr
    (run,) = (place / "home" / "runs").iterdir()
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    more = mgd("curate", str(place / "small.toml"), "--home", str(place / "home"), **nobody)
    (run / "report.html").write_bytes(page)
    assert more.returncode == 1 and "no Prefect server answers there" in more.stderr, "something is left to do"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curate", "fasion"], "no catalog 'fasion'"),
        (["sql", "selekt 1"], "syntax error"),
        (["export", "--format", "datacomp", "--run", "nope"], "no run 'nope'"),
    ],
)
@pytest.mark.xdist_group("curate")
def test_a_users_mistake_ends_as_one_message(place: Path, arguments: list[str], message: str) -> None:
    ended = mgd(*arguments, "--home", str(place / "home"))
    assert ended.returncode == 1 and message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.xdist_group("curate")
def test_a_failed_flow_ends_as_one_message(tmp_path: Path, prefect_api: str) -> None:
    catalog = small_catalog(tmp_path, ("learning_rate = 2e-3", "learning_rate = 1e30"))
    ended = mgd("curate", str(catalog), "--home", str(tmp_path / "home"), PREFECT_API_URL=prefect_api)
    assert ended.returncode == 1 and "Lower the learning rate" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["", "curate", "sql", "runs", "report", "export", "serve", "server"])
@pytest.mark.xdist_group("curate")
def test_every_command_has_help(command: str) -> None:
    ended = mgd(*filter(None, [command]), "--help")
    assert ended.returncode == 0 and "--home" in ended.stdout
