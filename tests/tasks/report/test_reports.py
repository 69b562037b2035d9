"""Reports: the page is whole, safe and the same every time; the result table is worked out by hand; what a run
lacks is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.files.artefacts import publish_bytes, publish_json
from tasks.html.charts import bars, ticks
from tasks.report.contact_sheets import picture_url
from tasks.report.reports import format_result_table, result_table, write_report
from tasks.report.results import gap_closed
from tasks.tables.published import publish
from tasks.tables.queries import QueryError
from tasks.tables.query_output import run_sql

RUN = "small-1"
HOSTILE = (
    '</span></bdi><script>alert(1)</script><img src="https://evil.example/x.png" onerror=alert(2)> & "q\' \u202e\x00'
)
VOID = {"meta", "img", "br", "hr", "link", "input"}
SVG_LEAVES = {"line", "polyline", "circle", "rect", "path"}


class Page(HTMLParser):
    """Reads a page; fails when an element is closed that was not open."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.commands: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> while {self.open} are open"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)
        if self.open and self.open[-1] == "code" and data.startswith("mgd sql"):
            self.commands.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def evaluations(**subsets: list[float]) -> pa.Table:
    rows = []
    for subset, values in subsets.items():
        for seed, value in enumerate(values):
            own = {"subset": subset, "seed": seed, "samples_seen": 640}
            rows.append({**own, "task": "clothes", "metric": "acc1", "value": value})
            rows.append({**own, "task": "clothes", "metric": "loss", "value": 2 - value})
            rows.append({**own, "task": "heldout", "metric": "acc1", "value": 0.99})
    return pa.Table.from_pylist(rows)


ALL = {
    "everything": [0.4, 0.5],
    "random": [0.45, 0.4],
    "clip_filter": [0.5, 0.52],
    "mgd": [0.6, 0.6],
    "oracle": [0.6, 0.7],
}


def rounds_row(**columns: Any) -> pa.Table:
    losses = {"target_loss": 2.0, "heldout_loss": 2.1, "train_loss": 3.0, "temperature": 10.0}
    shares = {"target_accuracy": 0.4, "heldout_accuracy": 0.39}
    work = {"advances": 8, "reverse_steps": 6, "peak_states": 7, "peak_bytes": 700}
    sizes = {"distinct_samples": 4, "total": 4, "probed": 4, "raised": 1, "lowered": 2}
    return pa.Table.from_pylist([{**losses, **shares, **work, **sizes, **columns}])


@pytest.fixture
def full_run(small_run: Path, rows: Callable[..., pa.Table], picture: Callable[..., bytes]) -> Path:
    """`small-1` with pictures in a shard, rounds, evaluations, a reject and a record."""
    home, data = small_run, b""
    offsets, sizes = [], []
    for number in range(4):
        image = picture(number)
        offsets.append(len(data))
        sizes.append(len(image))
        data += image
    extra: dict[str, Any] = {
        "text": ["a coat", "a bag", HOSTILE, "a dress"],
        "truth_clean": [True, True, False, False],
        "truth_text": ["a coat", "a bag", "<b>a shirt</b>", "a boot"],
        "image_offset": offsets,
        "image_size": sizes,
    }
    publish(home, RUN, "samples", 0, rows("samples", **extra))
    publish_bytes(home / "pools" / "pool-1" / "shards" / "00000.tar", data)
    for number in range(3):
        publish(home, RUN, "rounds", number, rounds_row(heldout_accuracy=0.4 + number / 10))
    publish(home, RUN, "evaluations", 1, evaluations(**ALL))
    reject = {"shard": "a.tar", "member": "<i>m</i>", "reason": "undecodable_image", "detail": "x"}
    publish(
        home,
        RUN,
        "rejects",
        0,
        pa.table({k: [v] for k, v in reject.items()} | {"uid": pa.array([None], pa.binary(16))}),
    )
    descent = {"rule": "sign", "p": 1.0}
    record = {"pool_id": "pool-1", "catalog": {"name": "small", "description": "four <things>", "descent": descent}}
    publish_json(home / "runs" / RUN / "run.json", record)
    publish_bytes(home / "runs" / RUN / "catalog.toml", b'name = "small" # <script>\n')
    return home


def test_the_page_is_well_formed_and_needs_nothing_else(full_run: Path) -> None:
    path = write_report(full_run, RUN)
    page = Page(path)
    assert path == full_run / "runs" / RUN / "report.html"
    assert not page.named("script") and not page.named("link") and not page.named("iframe")
    sources = [attrs["src"] or "" for attrs in page.named("img")]
    assert len(sources) >= 4 and all(source.startswith("data:image/png;base64,") for source in sources)
    for _, attrs in page.elements:
        assert not any(name.startswith("on") or name in ("srcset", "action") for name in attrs)
        assert (attrs.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import|https?:", re.sub("https://evil.example", "", path.read_text()))
    assert len(page.named("svg")) >= 7 and "pixelated" in path.read_text()


def test_equal_tables_give_equal_bytes(full_run: Path, tmp_path: Path) -> None:
    first = write_report(full_run, RUN).read_bytes()
    elsewhere = shutil.copytree(full_run, tmp_path / "elsewhere")
    assert write_report(elsewhere, RUN).read_bytes() == first == write_report(full_run, RUN).read_bytes()


def test_captions_cannot_get_out_of_their_place(full_run: Path) -> None:
    path = write_report(full_run, RUN)
    page, source = Page(path), path.read_text()
    assert "<script" not in source and "<b>" not in source and "<i>m" not in source and "\x00" not in source
    assert "really: <b>a shirt</b>" in page.text and "four <things>" in page.text
    titles = [attrs.get("title") or "" for attrs in page.named("span")]
    assert any("alert(1)" in title and "\u202e" in title for title in titles)
    assert page.named("bdi")


def test_result_table_by_hand(full_run: Path) -> None:
    found = {row["subset"]: row for row in result_table(full_run, RUN)}
    assert list(found) == ["oracle", "mgd", "clip_filter", "everything", "random"]
    mean, std, gap = "clothes acc1", "clothes acc1 std", "clothes acc1 gap closed"
    assert found["mgd"][mean] == pytest.approx(0.6) and found["mgd"][std] == 0
    assert found["oracle"][std] == pytest.approx(0.1 / 2**0.5)
    assert [found[s][gap] for s in found] == pytest.approx([1, 0.75, 0.3, 0, -0.125])
    assert {s: (found[s]["samples"], found[s]["distinct"]) for s in found} == {
        "oracle": (2, 2), "mgd": (3, 2), "clip_filter": (2, 2), "everything": (4, 4), "random": (2, 2)
    }  # fmt: skip
    assert {(row["samples_seen"], row["seeds"]) for row in found.values()} == {(640, 2)}
    assert not any("heldout" in key for key in found["mgd"]), "the held-out task chose the round: it is no test"
    shown = format_result_table(list(found.values()))
    assert re.search(r"metagradient descent +3 +2 +60\.0 ± 0\.0 % +75 %", shown)
    assert "Every training saw 640 samples; 2 seeds each." in shown


@pytest.mark.parametrize(
    ("value", "everything", "oracle", "closed"),
    [(0.6, 0.4, 0.8, 0.5), (0.4, 0.4, 0.8, 0), (0.9, 0.4, 0.8, 1.25), (0.6, 0.5, 0.5, None), (0.6, 0.5, None, None)],
)
def test_gap_closed(value: float, everything: float, oracle: float | None, closed: float | None) -> None:
    assert gap_closed(value, everything, oracle) == (closed if closed is None else pytest.approx(closed))


def test_the_words_are_those_of_the_tables(full_run: Path) -> None:
    words = Page(write_report(full_run, RUN)).text
    assert "Trained on the 2 of 4 samples that metagradient descent chose, the recipe reaches 60.0 ± 0.0 %" in words
    assert "against 45.0 ± 7.1 % on everything; that closes 75 % of the gap to the oracle" in words
    assert "The best rival, the own-model CLIP filter, reaches 51.0 ± 1.4 %." in words
    assert "Of the pool's captions 50 % are right, of those kept 50 %; 50 % of the right ones were kept" in words
    assert "The sign decides: of all samples" in words and "undecodable image" in words


def test_a_rival_that_wins_is_named(full_run: Path) -> None:
    publish(full_run, RUN, "evaluations", 1, evaluations(**{**ALL, "random": [0.9], "mgd": [0.3, 0.4]}))
    words = Page(write_report(full_run, RUN)).text
    assert "that is worse than no curation" in words
    assert "It is not the best: a random subset of equal size reaches 90.0 %." in words


def test_every_command_on_the_page_can_be_given(full_run: Path) -> None:
    commands = Page(write_report(full_run, RUN)).commands
    assert len(commands) >= 10
    for line in commands:
        match = re.fullmatch(rf'mgd sql --run {RUN} "([^"]+)"', line)
        assert match, line
        with open("/dev/null", "w") as out:
            run_sql(full_run, match[1], RUN, out)


def test_what_a_run_has_not_got_is_said(small_run: Path, rows: Callable[..., pa.Table]) -> None:
    words = Page(write_report(small_run, RUN)).text
    assert "has published no evaluations" in words and "No round has finished yet" in words
    assert "The run's record (run.json) is not here" in words and "The run's catalog" in words
    assert result_table(small_run, RUN) == [] and "No comparison yet" in format_result_table([])

    publish(small_run, "one-1", "counts", 0, rows("counts"))
    publish(small_run, "one-1", "samples", 0, rows("samples"))
    publish(small_run, "one-1", "rounds", 0, rounds_row(raised=0, lowered=0, probed=0))
    words = Page(write_report(small_run, "one-1")).text
    for said in (
        "The run has a single round",
        "No round is chosen yet",
        "No round has metagradients yet",
        "does not tell which captions are right",
        "No round has moved a count yet",
        "No timings are published yet",
        "No sample was dropped",
        "No count changed between rounds",
        "unreadable",
    ):
        assert said in words, said
    publish(small_run, "bare-1", "timings", 0, rows("timings"))
    assert "No samples or no counts" in Page(write_report(small_run, "bare-1")).text
    with pytest.raises(QueryError, match="no run 'none-1'"):
        write_report(small_run, "none-1")


def test_without_an_oracle_there_is_no_gap(full_run: Path) -> None:
    publish(full_run, RUN, "evaluations", 1, evaluations(**{k: v for k, v in ALL.items() if k != "oracle"}))
    words = Page(write_report(full_run, RUN)).text
    assert "There is no oracle among the subsets" in words and "gap closed" not in words.split("There is no")[0]
    assert {row["clothes acc1 gap closed"] for row in result_table(full_run, RUN)} == {None}


def test_zero_metagradients_and_no_probes(full_run: Path, rows: Callable[..., pa.Table]) -> None:
    for number in range(2):
        publish(full_run, RUN, "metagradients", number, rows("metagradients", g=np.zeros(4)))
    assert "every g is 0" in Page(write_report(full_run, RUN)).text
    for number in range(2):
        publish(full_run, RUN, "metagradients", number, rows("metagradients", g=np.zeros(4), probed=[False] * 4))
    assert "not probed" in Page(write_report(full_run, RUN)).text


def test_large_pictures_are_made_small_and_broken_ones_left_out(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    large = picture(1, (300, 150), "JPEG")
    (tmp_path / "a.tar").write_bytes(large)
    row = {
        "shard": "a.tar",
        "image_offset": 0,
        "image_size": len(large),
        "width": 300,
        "height": 150,
        "image_format": "jpg",
    }
    url = picture_url(row, tmp_path)
    assert url and url.startswith("data:image/png;base64,") and len(url) < 60_000
    assert picture_url(row | {"image_offset": 10}, tmp_path) is None
    assert picture_url(row | {"shard": "b.tar"}, tmp_path) is None
    (tmp_path / "c.tar").write_bytes(b"no picture" * 10)
    assert picture_url(row | {"shard": "c.tar", "image_size": 50}, tmp_path) is None


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (1.6, 2.12), (0.44, 0.66), (-4e-5, 4.4e-5), (3, 3), (0, 1407), (0, 1)]
)
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 7 and marks == sorted(set(marks))
    assert all(low - 1e-9 <= mark <= max(high, low * 1.1 + 0.1) + 1e-9 for mark in marks)


def test_chart_texts_are_escaped() -> None:
    drawn = bars("<t>", [("<script>", 1.0, "<&>"), ("b", 0.0, "0")])
    assert "<script>" not in drawn and "&lt;script&gt;" in drawn
