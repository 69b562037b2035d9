"""The server of a home's pages: what it answers, to whom, and that it ends."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.runtime import stop_server
from flows.runtime.pages import ensure_pages, page_url
from flows.runtime.server import read_record
from testing.listeners import listening


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("MGD_PAGES_URL")
    (tmp_path / "runs" / "a b").mkdir(parents=True)
    (tmp_path / "runs" / "a b" / "report.html").write_text("<html>ours</html>")
    (tmp_path / "secret.html").write_text("<html>secret</html>")
    yield tmp_path
    stop_server(tmp_path)


def asked(url: str, host: str | None = None) -> tuple[int, bytes]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
    connection.request("GET", place.path, headers={"Host": place.netloc if host is None else host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_report_is_served_on_the_loopback_and_nothing_else(home: Path) -> None:
    url = page_url(home, home / "runs" / "a b" / "report.html")
    assert url.startswith("http://127.0.0.1:") and url.endswith("/runs/a%20b/report.html")
    assert asked(url) == (200, b"<html>ours</html>")
    base = ensure_pages(home)
    assert url.startswith(base), "one server a home"
    record = read_record(home / ".prefect" / "pages.json")
    assert record is not None and set(listening(record.pid)) == {("tcp", "0100007F")}
    (home / "report.html").write_text("<html>secret</html>")
    for path in (
        "", "secret.html", "runs/../secret.html", "runs/%2e%2e/report.html", "runs/none/report.html", "runs/a%20b",
        "runs/%2e%2e%2fsecret.html", "runs/a%00b/report.html", "runs/..%2f..%2fetc/report.html", "/etc/passwd",
        "runs/a%20b/report.html/x", "runs/a%20b%5c..%5creport.html", "%72uns/a%20b/../report.html", "runs//report.html",
    ):  # fmt: skip
        assert asked(f"{base}/{path}")[0] == 404, path
    for host in ("evil.example:80", "evil.example", "127.0.0.1.evil.example:80", "localhost.evil:80", "[::1]:80", ""):
        assert asked(url, host)[0] == 404, "a name that was made to mean the loopback"
    assert not (home / "logs" / "pages.log").read_text(), "no request makes it stumble"


def test_it_ends_with_the_local_server(home: Path) -> None:
    ensure_pages(home)
    record = read_record(home / ".prefect" / "pages.json")
    assert record is not None and record.alive()
    stop_server(home)
    deadline = time.monotonic() + 10
    while record.alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not record.alive() and not (home / ".prefect" / "pages.json").exists()


def test_another_address_is_used_where_there_is_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = home / "runs" / "a b" / "report.html"
    monkeypatch.setenv("MGD_PAGES_URL", "https://pages.example/mgd/")
    assert page_url(home, page) == "https://pages.example/mgd/runs/a%20b/report.html"
    monkeypatch.setenv("MGD_PAGES_URL", "")
    assert page_url(home, page) == page.as_uri()
    assert not (home / ".prefect").exists()


def test_pages_are_served_from_where_the_home_was_moved(home: Path) -> None:
    first = page_url(home, home / "runs" / "a b" / "report.html")
    old = read_record(home / ".prefect" / "pages.json")
    moved = home.rename(home.with_name("moved"))
    try:
        url = page_url(moved, moved / "runs" / "a b" / "report.html")
        assert asked(url) == (200, b"<html>ours</html>") and url != first
        assert old is not None
        deadline = time.monotonic() + 10
        while old.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not old.alive()
    finally:
        stop_server(moved)
        moved.rename(home)
