"""Pages: whatever a template is told comes out as text, and charts as files of their own."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError

from tasks.html.charts import Series, bars, curves, keys, standalone
from tasks.html.pages import TEMPLATES, Figure, Table, render, showable

HOSTILE = "</p><script>alert(1)</script>\x00\x1b\" onload='x'"
FOUND = {
    "title": HOSTILE,
    "source": HOSTILE,
    "headline": (HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)]),
    "directory": HOSTILE,
}
TABLE = Table([HOSTILE], [[HOSTILE]], [0])


def census(**told: object) -> str:
    drawn = Figure(HOSTILE, bars(HOSTILE, [(HOSTILE, 1.0, HOSTILE)]) + keys([(HOSTILE, "clean")]), HOSTILE)
    links = {"figures": [Figure(HOSTILE, TABLE)], "errors": TABLE}
    parts = {"verdict": TABLE, "findings": [(HOSTILE, TABLE)], "samples": [drawn, HOSTILE], "links": links}
    return render("census", **{**FOUND, **parts, "shards": {"figures": HOSTILE, "worst": TABLE}, **told})


def test_what_a_page_is_told_is_text_wherever_it_stands() -> None:
    page = census()
    assert "<script" not in page and " onload='" not in page and not {"\x00", "\x1b"} & set(page)
    assert page.count("&lt;script&gt;") >= 20 and page.count("\ufffd\ufffd") >= 20


def test_a_template_that_is_not_told_something_fails() -> None:
    with pytest.raises(UndefinedError, match="worst"):
        census(shards={"figures": []})


def test_every_page_forbids_what_lies_outside_it() -> None:
    policy = "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\""
    assert policy in census()
    for path in TEMPLATES.glob("*.j2"):
        source = path.read_text()
        assert "|safe" not in source and "autoescape" not in source and "http" not in source.replace("http-equiv", "")


def test_a_query_that_a_shell_would_read_is_no_command() -> None:
    told = {"run": "r-1", "gallery": Figure("t", TABLE, "w", "SELECT $1"), "rows": [1], "told": "", "table": TABLE}
    with pytest.raises(AssertionError, match="does not survive"):
        render("gallery", **told)


def test_a_chart_is_a_file_that_viewers_take() -> None:
    drawn = curves("<t>", [Series("\x00&", "a", [0.0, 2.0, 1.0]), Series("", "b", [1.0, None, 1.0])], [1.0, 0.5], "x")
    root = ElementTree.fromstring(standalone(drawn, ".a { stroke: red }"))
    lines = root.findall("{*}polyline")
    assert root.get("aria-label") == "<t>" and [line.get("stroke-opacity") for line in lines] == ["1.00", "0.50"]
    assert lines[0].get("points") == "50,202 165,20 280,111" and showable("\x00&") in [one.text for one in root]
