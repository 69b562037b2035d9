"""Boundaries: what is not of this machine is refused where it is given, and addresses that a deployment does not allow
are not asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path

import pytest

from flows.cli import main
from flows.runtime import ServerError, ensure_server, server_status, stop_server
from tasks.files.local_files import NotLocal, local_path
from tasks.files.remotes import NotAllowed, RemoteOptions, file_info, read_ranges, store_of
from tasks.homes.working_copies import NoHome
from testing.listeners import LOOPBACK, listening
from tests.flows.test_mistakes import mgd

ROOT = Path(__file__).parents[2]
COMMANDS: dict[str, list[str]] = {
    "curate": ["curate", "fashion"],
    "sql": ["sql", "select 1"],
    "runs": ["runs"],
    "report": ["report"],
    "export": ["export", "--format", "datacomp"],
    "census": ["census", "fashion"],
    "plan": ["plan", "fashion"],
    "smoothness": ["smoothness", "fashion"],
    "attribute": ["attribute", "fashion"],
    "schedule": ["schedule", "fashion"],
    "poison": ["poison", "fashion"],
    "subset": ["subset", "no_filter", "--catalog", "fashion"],
    "evaluate": ["evaluate", "sets"],
    "reshard": ["reshard", "pool", "--out", "here"],
    "submit-folder": ["submit-folder", "--out", "here", "--results", "r", "--method", "m"],
    "serve": ["serve", "fashion", "--cron", "0 3 * * *"],
    "server": ["server", "start"],
    "remove": ["remove", "run-1"],
    "prune": ["prune"],
}
WRITING = ("export", "subset", "evaluate", "reshard", "submit-folder")


@pytest.mark.parametrize("url", ["https://host/x", "memory://x", "s3:/b/x"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_home_where_nothing_can_be_kept_is_refused_by_every_command(
    command: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, told = mgd(capsys, *COMMANDS[command], "--home", url)
    assert (
        status == 2
        and "argument --home" in told
        and f"'{url}': no home can be there" in told
        and "Name a directory" in told
    )
    monkeypatch.setenv("MGD_HOME", url)
    assert mgd(capsys, *COMMANDS[command])[0] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", WRITING)
def test_a_place_elsewhere_to_write_to_is_refused(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, told = mgd(capsys, *COMMANDS[command], "--home", tmp_path / "home", "--out", "s3://bucket/out")
    assert status == 2 and "argument --out" in told and "is a URL" in told and list(tmp_path.iterdir()) == []


def test_a_folder_may_be_called_like_a_url_where_that_is_said(tmp_path: Path) -> None:
    assert local_path("./s3:/b") == Path("s3:/b") and local_path("a/b://c") == Path("a/b:/c")
    assert local_path("/s3:/b") == Path("/s3:/b") and local_path("runs") == Path("runs")
    for text in ("s3://b", "S3://b", Path("s3://b")):
        with pytest.raises(NotLocal, match=r"\./[sS]3:/"):
            local_path(text)


@pytest.mark.parametrize("stage", ["curate", "census", "nightly"])
def test_a_deployments_home_cannot_be_there_either(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run form takes any text: the body of a flow stops before anything is made."""
    flow = getattr(import_module(f"flows.{stage}"), stage)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoHome, match="no home can be there"):
        flow.fn("fashion", home="https://host/home")
    assert not any(tmp_path.iterdir())


class _Counting(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"data"[: 4 if self.command == "GET" else 0])

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """A web server of this machine's, at a loopback address."""
    _Counting.asked = 0
    server = HTTPServer(("127.0.0.1", 0), _Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


QUICK = RemoteOptions(attempts=1, timeout_s=5)


def test_only_addresses_on_the_list_are_asked(web: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert file_info(f"{web}/a.tar", QUICK)["size"] == 4, "no list, no limit"
    for allowed in ("http://127.0.0.1", "s3://bucket HTTP://127.0.0.1/", "http://127.*", "*"):
        monkeypatch.setenv("MGD_ALLOWED_URLS", allowed)
        assert file_info(f"{web}/a.tar", QUICK)["size"] == 4
    seen = _Counting.asked
    for allowed in ("", "https://127.0.0.1", "http://localhost s3://*", "http://127.0.0.1.example"):
        monkeypatch.setenv("MGD_ALLOWED_URLS", allowed)
        with pytest.raises(NotAllowed, match=r"http://127\.0\.0\.1 is not among the places"):
            file_info(f"{web}/a.tar", QUICK)
        with pytest.raises(NotAllowed):
            read_ranges(f"{web}/a.tar", [(0, 4)], QUICK)
    assert _Counting.asked == seen, "nobody was asked"
    (tmp_path / "a.tar").write_bytes(b"data")
    for here in (str(tmp_path / "a.tar"), f"file://{tmp_path}/a.tar"):
        assert file_info(here)["size"] == 4, "what is on this machine is no address"


@pytest.mark.parametrize(
    "url",
    [
        "http://ok.example@127.0.0.1/x", "http://127.0.0.1\\@ok.example/x", "simplecache::http://127.0.0.1/x",
        "file:///x::http://127.0.0.1/x", "http://ok.example/x::http://127.0.0.1/x", "memory://x", "ssh://ok.example/x",
        "http://ok.example.evil/x", "http://ok.example\n.evil/x",
    ],
)  # fmt: skip
def test_no_spelling_of_an_address_gets_around_the_list(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGD_ALLOWED_URLS", "http://ok.example")
    with pytest.raises(NotAllowed):
        store_of(url)


def test_a_pool_elsewhere_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MGD_ALLOWED_URLS", "s3://ours")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/{{0..3}}.tar"
        assert main(["subset", "no_filter", "--pool", url, "--home", str(tmp_path), "--out", str(tmp_path / "a.npy")])
    assert "is not among the places that may be read here" in capsys.readouterr().err
    assert not (tmp_path / "a.npy").exists()


def test_the_local_server_listens_on_this_machine_only(server_home: Path, prefect_api: str) -> None:
    pid = server_status(server_home).pid
    assert pid is not None
    found = listening(pid)
    assert found and set(found) <= LOOPBACK, found


def test_what_listens_elsewhere_would_be_seen() -> None:
    with socket.socket() as wide:
        wide.bind(("0.0.0.0", 0))
        wide.listen()
        assert ("tcp", "00000000") in listening(os.getpid())


FLOW = """
import sys
from pathlib import Path
from flows.runtime import prefect_session
with prefect_session(Path(sys.argv[1])) as url:
    from prefect import flow, task
    @task
    def one(): return 1
    @flow
    def both(): return one.submit().result()
    print(url, both())
"""


def test_a_password_guards_the_api_of_the_local_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING")
    try:
        words = [sys.executable, "-c", FLOW, str(tmp_path)]
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200, check=True)
        url, answer = ended.stdout.split()
        assert answer == "1" and server_status(tmp_path).running
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/admin/settings", timeout=20)
        place = tmp_path / ".prefect" / "password"
        assert place.stat().st_mode & 0o077 == 0 and place.read_text().strip() == server_status(tmp_path).password
        monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "mgd:another word")
        with pytest.raises(ServerError, match="asks for another password: set PREFECT_SERVER_API_AUTH_STRING"):
            ensure_server(tmp_path)
    finally:
        assert stop_server(tmp_path)
