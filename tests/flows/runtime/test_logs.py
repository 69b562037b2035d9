"""The log of a home: of bounded size, whole lines, whoever writes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.runtime import logs

WRITER = """
import logging, sys
from pathlib import Path
from flows.runtime import logs
logs.MOST = 20_000
with logs.logged(Path(sys.argv[1])):
    logger = logging.getLogger("mgd")
    logger.setLevel(logging.INFO)
    for number in range(500):
        logger.info("%s says %d %s", sys.argv[2], number, "x" * 50)
"""


def test_many_processes_write_and_turn_over_one_log_and_no_line_is_torn_or_lost(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*words, name]) for name in ("one", "two", "three")]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    files = sorted((tmp_path / "logs").glob("mgd.log*"))
    assert [file.name for file in files] == ["mgd.log", *(f"mgd.log.{n}" for n in range(1, logs.KEPT + 1))]
    assert all(file.stat().st_size <= 20_000 for file in files)
    lines = [line for file in reversed(files) for line in file.read_text().splitlines()]
    assert all(line.endswith("x" * 50) for line in lines)
    for name in ("one", "two", "three"):
        numbers = [int(line.split()[-2]) for line in lines if f" {name} says " in line]
        assert numbers == list(range(numbers[0], 500)), "the oldest go, and none between"


def test_a_session_leaves_no_handler_behind_and_logs_into_its_own_home(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with logs.logged(tmp_path / name):
            logging.getLogger("prefect").addHandler(logging.NullHandler())
            logs.join_log()
            logging.getLogger("mgd").warning("in %s", name)
        assert not [one for one in logging.getLogger("prefect").handlers if isinstance(one, logs.HomeLog)]
    assert "MGD_LOGS" not in os.environ
    first, second = ((tmp_path / name / "logs" / "mgd.log").read_text() for name in ("a", "b"))
    assert "in a" in first and "in b" not in first and "in b" in second


def test_work_does_not_need_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").write_text("a file where a folder is to be")
    with logs.logged(tmp_path):
        logging.getLogger("mgd").warning("to nowhere")
    logs.note_command(tmp_path, "mgd curate: done")


def test_a_servers_log_is_turned_over_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST", 10)
    path = tmp_path / "logs" / "server.log"
    assert logs.turned(path) == path
    path.write_text("short")
    logs.turned(path)
    assert path.read_text() == "short"
    path.write_text("long enough to go")
    logs.turned(path)
    assert not path.exists() and path.with_name("server.log.1").read_text() == "long enough to go"
