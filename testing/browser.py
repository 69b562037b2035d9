"""A headless Chromium that looks at a page as a person would: real time, its words, its picture.

Driven by its own debugging protocol over a websocket on the loopback, so nothing but the browser is needed.
"""

from __future__ import annotations

import base64
import json
import os
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

PATIENCE = float(os.environ.get("MGD_TEST_PATIENCE", "90"))
"""Seconds that anything may take."""
WINDOW = (1400, 1000)


def chromium() -> str | None:
    """The program, if the machine has it."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab."""

    def __init__(self, socket: Connection) -> None:
        self._socket, self._number = socket, 0
        self._events: list[dict[str, Any]] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """An answer of the protocol."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE))
            if "method" in answer:
                self._events.append(answer)
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

    def listen(self) -> None:
        """Take note of what the page complains of from now on."""
        for domain in ("Runtime", "Log", "Page"):
            self.ask(f"{domain}.enable")

    def complaints(self) -> list[str]:
        """Errors of the console and exceptions so far, in the browser's words."""
        self.run("1")  # what was sent before is read
        found = [(one["method"], one["params"]) for one in self._events]
        told = [told["entry"] for method, told in found if method == "Log.entryAdded"]
        return [
            *(f"{one['text']} {one.get('url', '')}" for one in told if one["level"] == "error"),
            *(str(told["exceptionDetails"]) for method, told in found if method == "Runtime.exceptionThrown"),
            *(str(told["args"]) for method, told in found
              if method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert")),
        ]  # fmt: skip

    def until(self, script: str) -> Any:
        """Wait until a script's value is true; returns it, or raises AssertionError with what is seen instead."""
        deadline = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"{script} is {value}, and seen is: {self.words()[:3000]}"
            time.sleep(0.1)
        return value

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key of the keyboard; `modifiers`: 2 with Ctrl, 8 with Shift."""
        text = {"text": key} if len(key) == 1 and not modifiers else {"text": "\r"} if key == "Enter" else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=modifiers, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, modifiers=modifiers)

    def drag(self, element: str, start: float, end: float) -> None:
        """Drag over what a selector finds, from one share of its width to another."""
        script = f"(() => {{ const box = document.querySelector({json.dumps(element)}).getBoundingClientRect(); "
        box = self.run(f"{script} return [box.x, box.y, box.width, box.height]; }})()")
        y = box[1] + box[3] / 2
        for kind, share in (("mousePressed", start), ("mouseMoved", (start + end) / 2), ("mouseMoved", end),
                            ("mouseReleased", end)):  # fmt: skip
            self.ask("Input.dispatchMouseEvent", type=kind, x=box[0] + share * box[2], y=y, button="left",
                     buttons=int(kind != "mouseReleased"), clickCount=1)  # fmt: skip

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
