"""A home's reports over HTTP on the loopback address, for the browser that shows Prefect's pages.

A browser follows no link from http:// to file://. So the first flow that has a page to show starts a small server of
its own (`python -m flows.runtime.pages HOME`), which later ones find by ``<home>/.prefect/pages.json`` and `mgd server
stop` ends; it goes by itself when its home is removed. It answers GET of a run's or a census's page and of nothing
else, and only who asks for it by a loopback name: a page from elsewhere cannot read it by another. MGD_PAGES_URL says
where the home's pages are reached otherwise, behind a proxy say; then none is started.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from flows.runtime.environment import LOOPBACK, prefect_home
from flows.runtime.locks import exclusive
from flows.runtime.logs import logs_folder, turned
from flows.runtime.server import ServerRecord, process_start, read_record, write_record

VARIABLE = "MGD_PAGES_URL"
RECORD = "pages.json"
SHOWN = re.compile(r"runs/[^/]+/report\.html|census/[^/]+/census\.html")
"""Below the home, what is answered."""
START_SECONDS = 20.0
LOOK_SECONDS = 30.0
"""Between two looks at whether the home is still there."""


def page_url(home: Path, page: Path) -> str:
    """The address of a page of a home; a file:// one where no server can be had."""
    base = os.environ.get(VARIABLE)
    if base is None:
        base = ensure_pages(home)
    path = page.resolve().relative_to(Path(home).resolve()).as_posix()
    return f"{base.rstrip('/')}/{quote(path)}" if base else page.resolve().as_uri()


def ensure_pages(home: Path) -> str:
    """The address of the home's page server, which is started if it does not run; empty if that fails."""
    base = prefect_home(home)
    base.mkdir(parents=True, exist_ok=True)
    with exclusive(base / "pages.lock", note=str(os.getpid())):
        record = read_record(base / RECORD)
        place = record.of(base) if record is not None else "none"
        if record is not None and place == "ours":
            return record.url
        if record is not None and place == "moved":
            os.kill(record.pid, signal.SIGTERM)
        (base / RECORD).unlink(missing_ok=True)
        with open(turned(logs_folder(Path(home)) / "pages.log"), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.runtime.pages", str(Path(home).resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PREFECT_HOME": str(base)},
                start_new_session=True,
            )
        _OURS.append(process)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if (record := read_record(base / RECORD)) is not None:
                return record.url
            time.sleep(0.05)
    return ""


# Popen objects of servers that outlive their caller: dropping one makes Python warn of a running child.
_OURS: list["subprocess.Popen[bytes]"] = []


def serve_pages(home: Path) -> None:
    """Answer until the process is ended, or the home is gone."""
    handler = type("Handler", (_Handler,), {"home": home})
    with ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        os.chdir(prefect_home(home))
        started = process_start(os.getpid())
        assert started is not None
        url = f"http://{LOOPBACK}:{server.server_address[1]}"
        write_record(prefect_home(home) / RECORD, ServerRecord(url, os.getpid(), started))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while (prefect_home(home) / RECORD).exists():
            time.sleep(LOOK_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    home: Path
    timeout = 30

    def do_GET(self) -> None:
        """Answer with a page, or refuse."""
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in (LOOPBACK, "localhost") or not SHOWN.fullmatch(path) or ".." in path:
            self.send_error(404)
            return
        try:
            content = (self.home / path).read_bytes()
        except (OSError, ValueError):  # ValueError: a NUL in the name
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the log is for failures."""


if __name__ == "__main__":
    serve_pages(Path(sys.argv[1]))
