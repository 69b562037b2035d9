"""Views: the questions of `catalogs/views/*.sql`, and which of them a run's tables can answer.

A view's file is one CREATE VIEW named after the file, under a header of comment lines:

    -- What it shows, in plain words, over as many lines as it takes.
    -- needs: samples.truth_clean, sample_outcomes
    --   precision: One sentence on a column of the view.

`needs` names columns of tables, or other views; a view whose needs are not met is left out, and `views` says
why. A need may say of what type a column has to be: `samples.truth_clean (boolean)`. A file with
`-- for each: samples` stands for one view per column that the pool brought along and for the caption, with $column in
its text. Such a view is called after the column, in letters, digits and _; where two columns would give one name, the
caption or who is called so exactly gets it, the other `upstream_` before it.

Adding a question is adding a file; no Python changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mgd_core.errors import UserError
from tasks.files.package_data import CATALOGS
from tasks.tables.sql_headers import parse_header
from tasks.tables.sql_names import quoted, shown, word_names

VIEWS = CATALOGS / "views"
COLUMN = re.compile(r"(\w+): (.+)")
SOURCE = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)")
# What a column's view is called where the column's own name would say less.
NICKNAMES = {"text": "caption"}


class ViewError(UserError, ValueError):
    """A view's file that is not what `views` describes."""


@dataclass(frozen=True)
class View:
    """One view: its statement, what it shows, what it needs, and a sentence on each of its columns."""

    name: str
    sql: str
    doc: str
    needs: tuple[str, ...]
    columns: dict[str, str]
    per_column: bool = False
    column: str | None = None
    """The column that a view `for each` of them is for."""

    @property
    def sources(self) -> list[str]:
        """Tables and views that it reads, in the order in which its statement names them."""
        return list(dict.fromkeys(SOURCE.findall(self.sql)))

    def unmet(self, known: set[str]) -> list[str]:
        """The needs that are not among the known `view` and `table.column` names."""
        return [need for need in self.needs if need not in known]


def load_views(directory: Path = VIEWS) -> list[View]:
    """The views of a directory, by name; raises ViewError naming a file that is not one commented CREATE
    VIEW."""
    return [_parse(path) for path in sorted(directory.glob("*.sql"))]


def expand(views: Iterable[View], columns: Iterable[str]) -> list[View]:
    """Every view as it is, but those `for each` column once for each of `columns`, of which the first come first."""
    listed = list(columns)
    own = {name: NICKNAMES[name] for name in listed if name in NICKNAMES}
    called = {**own, **word_names([name for name in listed if name not in own], own.values())}
    return [
        one for view in views for one in ([_for_column(view, called, n) for n in listed] if view.per_column else [view])
    ]


def _parse(path: Path) -> View:
    header = parse_header(path.read_text(encoding="utf-8"), ("needs", "for each"))
    name = path.stem.replace("column", "$column") if "$column" in header.statement else path.stem
    if not header.doc or not header.statement.startswith(f"CREATE VIEW {name} AS"):
        raise ViewError(f"{path}: expected comment lines, then CREATE VIEW {name} AS ...")
    return View(
        name=name,
        sql=header.statement,
        doc=header.doc,
        needs=tuple(need.strip() for line in header.said["needs"] for need in line.split(",")),
        columns={match[1]: match[2] for match in map(COLUMN.fullmatch, header.notes) if match},
        per_column=bool(header.said["for each"]),
    )


def _for_column(view: View, called: Mapping[str, str], column: str) -> View:
    name = view.name.replace("$column", called[column])
    sql = view.sql.replace(f"CREATE VIEW {view.name}", f"CREATE VIEW {quoted(name)}", 1)
    sql = sql.replace("$column", quoted(column))
    doc = view.doc.replace("$column", shown(column))
    return replace(view, name=name, sql=sql, doc=doc, per_column=False, column=column)
