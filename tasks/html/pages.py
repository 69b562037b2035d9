"""Pages: HTML files that are complete in themselves, made by jinja2 from the templates in `catalogs/pages`.

What a template is told is escaped on its way in, and rid of what no HTML parser takes; markup is what has that type.
Nothing on a page refers to anything outside it: no script, no network; a content security policy forbids the rest.
Equal values give equal bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tasks.files.package_data import CATALOGS

TEMPLATES = CATALOGS / "pages"
# What no HTML parser takes, and what would reorder the page around a caption.
UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufdd0-\ufdef\ufffe\uffff]")
# Characters that a shell would read inside double quotes.
SHELL = set('"$`\\!')


class Table(NamedTuple):
    """Cells of plain text; columns that are set flush right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()


class Figure(NamedTuple):
    """A picture or a table under its title, what to see in it, and the query that gives its numbers."""

    title: str
    picture: Markup | Table
    words: str = ""
    sql: str = ""


Figures: TypeAlias = Sequence[Figure | str] | str
"""Pictures side by side; words in place of all or of one say what is missing."""


def render(template: str, **values: Any) -> Markup:
    """A template, told some values."""
    return Markup(ENVIRONMENT.get_template(f"{template}.html.j2").render(values))


def showable(value: object) -> str:
    """A value as text that every HTML parser takes; markup as it is."""
    return value if isinstance(value, Markup) else UNSHOWABLE.sub("\ufffd", str(value))


def escaped(value: object) -> Markup:
    """A value as text inside of markup that is made by hand."""
    return escape(showable(value))


def _tied(words: str) -> str:
    """Words in which a number stays beside its sign and unit."""
    return re.sub(r"(?<=\d) (?=[%±])|(?<=±) (?=\d)", "\u00a0", words)


def _asked(run: str, sql: str) -> str:
    """The command line that answers `sql` on the run."""
    sql = " ".join(sql.split())
    assert not SHELL & set(sql), f"this query does not survive a shell's double quotes: {sql}"
    return f'mgd sql --run {run} "{sql}"'


ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    finalize=showable,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"tied": _tied, "asked": _asked}
