"""Is `mgd explore` quick on a large run?

`python -m benchmarks.explore` publishes a synthetic run (`benchmarks.tables.synthetic`), starts the command on it, and
asks as the page does, six questions at a time:

* first_page_s: from the command's start until the page has its columns, counts, charts and first tiles;
* brush_s: from a brush that was never drawn until the count and all charts are there, the median of ten;
* grid_s: 200 samples and their thumbnails out of local shards, the slower of two orders: by uid, and by summed g, which
  lie scattered over all shards. They are JPEGs of 256 pixels; the rest of the shards is empty;
* peak_gib: most memory of the server.

Bars, at 12.8 M samples on two cores: 5 s, 0.3 s, 1 s, 3 GiB. `--quick` has a hundredth of that; `--rows` any number.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks._envelope import emit
from benchmarks.tables.synthetic import RUN, publish_rounds, publish_samples
from tasks.files.artefacts import publish_json
from tasks.tables.queries import connect

ROWS, QUICK, ROUNDS, BRUSHES, TILES, AT_ONCE = 12_800_000, 128_000, 3, 10, 200, 6
CHARTS = ("o:g_sum", "o:count", "o:outcome", "x:length", "o:clip_l14_similarity_score", "o:clip_b32_similarity_score")
"""What the page opens with on this run."""


class Browser:
    """Asks a server as the page does."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url.partition("?")[0], timeout=600, trust_env=False)
        self.client.get(url).raise_for_status()
        self.pool = ThreadPoolExecutor(AT_ONCE)

    def ask(self, path: str, choice: dict[str, Any], **more: Any) -> Any:
        """An answer."""
        answer = self.client.get(path, params={"choice": json.dumps(choice), **more})
        answer.raise_for_status()
        return answer.json()

    def counts(self, choice: dict[str, Any]) -> int:
        """The count, then all charts; how many samples are shown."""
        shown = int(self.ask("/api/count", choice)["shown"])
        list(self.pool.map(lambda key: self.ask("/api/chart", choice, key=key), CHARTS))
        return shown

    def rows(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        """The first tiles, in two questions."""
        asked = self.pool.map(lambda at: self.ask("/api/rows", choice, start=at, size=100, page=at), (0, 100))
        return [row for rows in asked for row in rows]

    def pictures(self, rows: Sequence[dict[str, Any]]) -> int:
        """Their thumbnails, and the bytes of these."""
        paths = [f"picture/{row['uid']}?size=128" for row in rows]
        answers = list(self.pool.map(lambda path: self.client.get(path).raise_for_status(), paths))
        return sum(len(one.content) for one in answers)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} samples")
    parser.add_argument("--rows", type=int, default=ROWS, help="samples (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mgd-explore-") as place:
        emit("explore", measure(Path(place), QUICK if options.quick else options.rows))


def measure(home: Path, n: int) -> dict[str, Any]:
    """All figures."""
    publish_samples(home, n)
    publish_rounds(home, n, ROUNDS)
    publish_json(home / "runs" / RUN / "run.json", {"pool_id": "pool-1"})
    began = time.monotonic()
    command = [sys.executable, "-m", "flows.cli", "explore", RUN, "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None, process.stderr and process.stderr.read()
            browser = Browser(found[0])
            browser.counts({})
            browser.rows({})
            figures = {"rows": n, "first_page_s": time.monotonic() - began}
            figures |= _asked(browser, home)
            status = Path(f"/proc/{process.pid}/status").read_text()
            figures["peak_gib"] = int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 2**20
        finally:
            process.terminate()
    for name, value in figures.items():
        print(f"{name:<16}{value:>12,.2f}")
    return figures


def _asked(browser: Browser, home: Path) -> dict[str, float]:
    edges = browser.ask("/api/chart", {}, key="o:g_sum")["edges"]
    taken = []
    for number in range(BRUSHES):
        low, high = edges[2 + number], edges[-3 - number % 3]
        began = time.monotonic()
        assert browser.counts({"brushes": {"o:g_sum": {"low": low, "high": high}}})
        taken.append(time.monotonic() - began)
    grids = {}
    for order in ("uid", "o:g_sum"):
        choice: dict[str, Any] = {"order": order, "brushes": {"o:count": {"low": 1}}}
        _draw(home, browser.rows(choice))
        choice["seed"] = 1  # the same question as the page's, not answered before
        began = time.monotonic()
        browser.pictures(browser.rows(choice))
        grids[order] = time.monotonic() - began
    by = {f"grid_by_{order.removeprefix('o:')}_s": seconds for order, seconds in grids.items()}
    return {"brush_s": statistics.median(taken), "slowest_brush_s": max(taken), "grid_s": max(grids.values()), **by}


def _draw(home: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put a picture where each row says that its own lies, in shards that are holes elsewhere."""
    with connect(home, RUN) as connection:
        listed = ", ".join(f"'{row['uid']}'" for row in rows)
        asked = f"SELECT shard, image_offset, image_size FROM samples WHERE uid IN ({listed})"
        spans = connection.execute(asked).fetchall()
    draw = np.random.default_rng(0)
    for shard, offset, size in spans:
        buffer = io.BytesIO()
        small = draw.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=70
        )  # below the least size
        path = home / "pools" / "pool-1" / shard
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(buffer.getvalue()[:size].ljust(size, b"\0"))


if __name__ == "__main__":
    main()
