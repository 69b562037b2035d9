"""Markup: the few HTML shapes that the report is made of, and the one place where text becomes HTML.

Whatever comes from data goes through `text`; parameters named `html` are markup already. Nothing here refers to
anything outside the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

# What no HTML parser takes, and what would reorder the page around a caption.
UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufdd0-\ufdef\ufffe\uffff]")
# Characters that a shell would read inside double quotes.
SHELL = set('"$`\\!')


def text(value: object) -> str:
    """Any value as harmless HTML text, also inside a quoted attribute."""
    return escape(UNSHOWABLE.sub("\ufffd", str(value)), quote=True)


def caption(value: object) -> str:
    """Text of unknown direction: it cannot turn around the text beside it."""
    return f"<bdi>{text(value)}</bdi>"


def section(name: str, title: str, *html: str) -> str:
    """A part of the page with an anchor."""
    return f'<section id="{text(name)}">\n<h2>{text(title)}</h2>\n' + "\n".join(h for h in html if h) + "\n</section>"


def paragraph(words: str, style: str = "") -> str:
    """A paragraph of plain text, in which a number stays beside its sign and unit."""
    words = re.sub(r"(?<=\d) (?=[%±])|(?<=±) (?=\d)", "\u00a0", words)
    return f'<p class="{style}">{text(words)}</p>' if style else f"<p>{text(words)}</p>"


def absent(words: str) -> str:
    """What is missing from the run, said where it would stand."""
    return paragraph(words, "absent")


def figure(title: str, html: str, words: str = "", sql: str = "", run: str = "") -> str:
    """A picture under its title, with what to see in it and the command that gives its numbers."""
    told = paragraph(words, "told") if words else ""
    asked = command(run, sql) if sql else ""
    return f"<figure>\n<figcaption><h3>{text(title)}</h3>{told}</figcaption>\n<div>{html}</div>\n{asked}</figure>"


def figures(*html: str) -> str:
    """Pictures side by side where there is room."""
    return '<div class="figures">\n' + "\n".join(h for h in html if h) + "\n</div>"


def command(run: str, sql: str, label: str = "Ask for these numbers") -> str:
    """The command line that answers `sql` on the run, folded away."""
    sql = " ".join(sql.split())
    assert not SHELL & set(sql), f"this query does not survive a shell's double quotes: {sql}"
    line = text(f'mgd sql --run {run} "{sql}"')
    return f'<details class="ask"><summary>{text(label)}</summary><pre><code>{line}</code></pre></details>'


def folded(title: str, html: str) -> str:
    """Something to open."""
    return f"<details><summary>{text(title)}</summary>\n{html}\n</details>"


def data_table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: set[int] | None = None) -> str:
    """Cells of plain text; the columns in `numeric` (default: all but the first) are set flush right."""
    right = set(range(1, len(header))) if numeric is None else numeric

    def line(cells: Sequence[str], tag: str) -> str:
        made = [f"<{tag}{' class=num' if i in right else ''}>{text(c)}</{tag}>" for i, c in enumerate(cells)]
        return "<tr>" + "".join(made) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table><thead>{line(header, "th")}</thead><tbody>\n{body}\n</tbody></table></div>'
