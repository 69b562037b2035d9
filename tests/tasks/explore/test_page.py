"""The explorer's page in a real browser: a person's way through it, from opening to a file that equals plain SQL."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.explore.explorer import explored
from tasks.explore.serving import listening, server
from tasks.subset.files import read_subset
from tasks.tables.queries import connect
from tasks.tables.uids import uid_hex
from testing.browser import Page, chromium, opened
from testing.explored_run import HOSTILE, RUN, SAMPLES, explored_home

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
PICTURES = os.environ.get("MGD_TEST_PICTURES")
"""A folder for what the browser showed, for a person to look at."""
NAMELESS = """[...document.querySelectorAll('button, input, select, [role=option]')].filter((one) =>
  !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)).map((one) => one.outerHTML)"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return explored_home(tmp_path / "home")


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    with listening(None) as socket, explored(home, None) as explorer:
        port = socket.getsockname()[1]
        serving = server(explorer, port, "secret")
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [socket]})
        thread.start()
        yield f"http://127.0.0.1:{port}/?token=secret"
        serving.should_exit = True
        thread.join()


def look(page: Page, name: str) -> None:
    if PICTURES:
        page.picture(Path(PICTURES) / f"{name}.png")


def shown(page: Page, home: Path) -> int:
    """The number on the page, which is that of the page's SQL."""
    number = int(page.run("document.body.dataset.shown"))
    with connect(home, RUN) as connection:
        assert len(connection.execute(page.run("document.querySelector('#query').textContent")).fetchall()) == number
    return number


SETTLED = "document.body.dataset.turn && Number(document.body.dataset.turn) > {}"


def test_a_way_through_the_page(home: Path, address: str, tmp_path: Path) -> None:
    with opened(tmp_path / "profile") as page:
        page.listen()
        page.open(address, f"{SAMPLES} of {SAMPLES} samples shown", "g_sum", "style")
        page.until("document.querySelectorAll('.tile img').length > 20")
        page.until("[...document.querySelectorAll('.tile img')].every((one) => one.complete && one.naturalWidth)")
        assert page.run("document.title") == f"{RUN} · mgd explore" and "token" not in page.run("location.href")
        assert HOSTILE[0][:60] in page.run("document.querySelector('.tile .cap').textContent")
        assert page.run(NAMELESS) == []
        look(page, "opened")

        page.press("/")
        page.ask("Input.insertText", text="coun")
        page.wait("Times the sample stands in the chosen subset.")
        look(page, "completion")
        page.press("Tab")
        page.ask("Input.insertText", text=" > 0")
        page.press("Enter")
        page.until(SETTLED.format(1))
        filtered = shown(page, home)
        assert 0 < filtered < SAMPLES and page.run("document.querySelector('#where').value") == "count > 0"

        page.drag("section[aria-label=g_sum] svg", 0.1, 0.5)
        page.until(SETTLED.format(2))
        brushed = shown(page, home)
        assert 0 < brushed < filtered and '"g_sum" >=' in page.run("document.querySelector('#query').textContent")
        page.run("document.querySelector('#order').value = 'o:g_sum'")
        page.run("document.querySelector('#order').dispatchEvent(new Event('change'))")
        page.until("document.querySelectorAll('.tile').length > 5")
        look(page, "brushed")

        page.run("document.querySelector('.tile').focus()")
        page.press("ArrowRight")
        page.press("ArrowRight", 8)
        page.wait("2 picked")
        page.run("document.querySelector('#all').click()")
        page.wait(f"all {brushed} shown are picked")
        page.run("document.querySelector('#export').requestSubmit()")
        page.wait("mgd subset", f"{brushed} samples in")
        look(page, "exported")
        with connect(home, RUN) as connection:
            asked = connection.execute(page.run("document.querySelector('#query').textContent")).fetchall()
        written = uid_hex(read_subset(home / "subsets" / "explored.npy").uids)
        assert written == sorted(uid.hex for (uid,) in asked)

        page.run("document.querySelector('.tile').focus()")
        page.press("Enter")
        page.wait("All that is known", "image_offset")
        look(page, "story")
        page.press("Escape")

        where = page.run("location.href")
        page.open("about:blank")
        page.open(where, f"{brushed} of {SAMPLES} samples shown")
        page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        page.until("document.querySelectorAll('.tile img').length > 5")
        look(page, "dark")
        page.run("document.querySelector('#moves-box').open = true")
        page.wait("entered", "lowered")
        assert page.run("document.title") == f"{RUN} · mgd explore" and page.complaints() == []
