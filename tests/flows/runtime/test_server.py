"""The server's life, with a stand-in that answers alike and starts at once (test_session.py: the real one)."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flows.runtime import ServerError, ensure_server, server, server_status, stop_server

STAND_IN = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"home": os.environ["PREFECT_HOME"]}).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "server_command", lambda port: [sys.executable, "-c", STAND_IN, str(port)])
    yield tmp_path
    stop_server(tmp_path)


def record_of(home: Path) -> server.ServerRecord:
    return server.ServerRecord(**json.loads((home / ".prefect/server.json").read_text()))


def write_record(home: Path, record: server.ServerRecord) -> None:
    (home / ".prefect").mkdir(exist_ok=True)
    server.write_record(home / ".prefect" / "server.json", record)


def test_started_once_and_reused(home):
    assert not server_status(home).running
    url = ensure_server(home)
    first = record_of(home)
    assert ensure_server(home) == url == first.url
    assert record_of(home) == first
    status = server_status(home)
    assert (status.running, status.url, status.pid) == (True, url, first.pid)


def test_commands_at_the_same_time_start_one_server(home):
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(ensure_server(home))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(urls)) == 1 and len(urls) == 4


def test_runs_in_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(home):
    ensure_server(home)
    assert os.getsid(record_of(home).pid) != os.getsid(0)


def test_stop_ends_the_process_and_is_repeatable(home):
    ensure_server(home)
    record = record_of(home)
    assert stop_server(home)
    assert not record.alive()
    assert not server_status(home).running
    assert not stop_server(home)


def test_stop_of_a_home_that_does_not_exist_makes_nothing(tmp_path):
    assert not stop_server(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_recycled_pid_is_not_taken_for_the_server(home):
    started = server.process_start(os.getpid())
    assert started is not None
    mine = server.ServerRecord("http://127.0.0.1:9/api", os.getpid(), started)
    assert mine.alive()
    write_record(home, replace(mine, started="another-boot/1"))
    assert not server_status(home).running
    assert not stop_server(home), "it would have killed this very process"
    write_record(home, replace(mine, started="another-boot/1"))
    ensure_server(home)
    assert record_of(home).pid != os.getpid()


def test_a_stranger_on_the_port_is_not_taken_for_the_server(home, tmp_path_factory):
    stranger = ensure_server(tmp_path_factory.mktemp("other"))
    try:
        started = server.process_start(os.getpid())
        assert started is not None
        write_record(home, server.ServerRecord(stranger, os.getpid(), started))
        assert not server_status(home).running
        assert not stop_server(home), "it would have killed this very process"
        write_record(home, server.ServerRecord(stranger, os.getpid(), started))
        assert ensure_server(home) != stranger
    finally:
        other_home = json.loads(server.urllib.request.urlopen(f"{stranger}/admin/settings").read())["home"]
        assert stop_server(Path(other_home).parent)


def test_an_unreadable_record_is_no_record(home):
    (home / ".prefect").mkdir()
    (home / ".prefect/server.json").write_text("{torn")
    assert not server_status(home).running
    assert ensure_server(home) == record_of(home).url


def test_a_server_that_dies_while_starting_is_told_with_its_log(home, monkeypatch):
    command = [sys.executable, "-c", "raise SystemExit('no such table: flow_run')"]
    monkeypatch.setattr(server, "server_command", lambda port: command)
    with pytest.raises(ServerError, match="no such table: flow_run"):
        ensure_server(home)


def test_a_port_taken_in_the_meantime_costs_another_attempt(home, monkeypatch):
    ports: list[int] = []

    def command(port: int) -> list[str]:
        ports.append(port)
        if len(ports) == 1:
            return [sys.executable, "-c", f"raise SystemExit('Port {port} is already in use. Please')"]
        return [sys.executable, "-c", STAND_IN, str(port)]

    monkeypatch.setattr(server, "server_command", command)
    assert ensure_server(home).startswith(f"http://127.0.0.1:{ports[1]}/")


def test_a_killed_process_and_a_zombie_are_both_dead(home):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = server.process_start(child.pid)
    assert started is not None
    record = server.ServerRecord("http://127.0.0.1:9/api", child.pid, started)
    assert record.alive()
    child.kill()
    deadline = time.monotonic() + 5
    while record.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not record.alive(), "not yet waited for: a zombie"
    child.wait()
    assert not record.alive()


def test_a_copied_home_has_a_server_of_its_own_and_a_moved_one_does_not_keep_the_old(home, tmp_path_factory):
    url, first = ensure_server(home / "a"), record_of(home / "a")
    shutil.copytree(home / "a", home / "b")
    assert not server_status(home / "b").running and not stop_server(home / "b") and first.alive()
    shutil.copy(home / "a/.prefect/server.json", home / "b/.prefect/server.json")
    assert ensure_server(home / "b") != url and server_status(home / "a").running
    assert stop_server(home / "b")
    (home / "a").rename(home / "c")
    assert not server_status(home / "c").running, "it would write where the home was"
    ensure_server(home / "c")
    assert not first.alive() and record_of(home / "c").url == url, "a browser knows the address"
    assert stop_server(home / "c")


def test_a_server_that_runs_and_does_not_answer_is_told(home, monkeypatch):
    monkeypatch.setattr(server, "server_command", lambda _: [sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(ServerError, match=r"does not answer[\s\S]*mgd server stop"):
        ensure_server(home, timeout=0.3)
