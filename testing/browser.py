"""A headless Chromium that looks at a page as a person would: real time, its words, its picture.

Driven by its own debugging protocol over a websocket on the loopback, so nothing but the browser is needed.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

PATIENCE = 90.0
WINDOW = (1400, 1000)


def chromium() -> str | None:
    """The program, if the machine has it."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab."""

    def __init__(self, socket: Connection) -> None:
        self._socket, self._number = socket, 0

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """An answer of the protocol."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE))
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                found: dict[str, Any] = answer["result"]
                return found

    def run(self, script: str) -> Any:
        """The value of a script on the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def words(self) -> str:
        """All words that can be seen."""
        return str(self.run("document.body ? document.body.innerText : ''") or "")

    def open(self, url: str, *expected: str) -> str:
        """Go there and wait until all expected words are seen; returns all words."""
        self.ask("Page.navigate", url=url)
        return self.wait(*expected)

    def wait(self, *expected: str) -> str:
        """Wait until all these words are seen, in whatever case; raises AssertionError with what is seen instead."""
        deadline = time.monotonic() + PATIENCE
        while any(one.lower() not in (seen := self.words()).lower() for one in expected):
            missing = [one for one in expected if one.lower() not in seen.lower()]
            assert time.monotonic() < deadline, f"{missing} not seen, but: {seen[:3000]}"
            time.sleep(0.5)
        return seen if expected else self.words()

    def fill(self, field: str, text: str) -> None:
        """Type into the first field that a selector finds, and send its form."""
        self.run(f"document.querySelector({json.dumps(field)}).focus()")
        self.ask("Input.insertText", text=text)
        self.run(f"document.querySelector({json.dumps(field)}).form.requestSubmit()")

    def picture(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """A browser with one tab, whose profile lies in a folder; ended with the block."""
    program = chromium()
    assert program is not None, "no Chromium on this machine"
    words = [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    words += [f"--user-data-dir={profile}", f"--window-size={WINDOW[0]},{WINDOW[1]}", "about:blank"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        port = _port(profile / "DevToolsActivePort", process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
            (tab,) = (one for one in json.load(answer) if one["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _port(path: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + PATIENCE
    while not (path.exists() and path.read_text().strip()):
        assert process.poll() is None and time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.1)
    return int(path.read_text().split()[0])
