"""What the page has chosen: a filter line, words of the caption, brushes, an order; and the same as plain SQL.

`where` is what anybody can ask again: `mgd sql`, or a filter of `mgd subset`. What the page counts and exports is held
to it by tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from mgd_core.errors import UserError
from tasks.explore.columns import OUTCOMES, Column
from tasks.files.option_types import Strict
from tasks.tables.sql_names import IMPOSSIBLE, literal

LONGEST = 20_000
"""Characters of a filter line."""
Text = Annotated[str, Field(max_length=LONGEST)]


class ChoiceError(UserError, ValueError):
    """What the page, or who speaks in its place, asked for cannot be had."""


class Brush(Strict):
    """Values of one column: numbers from `low` on and below `high`, or some words; `none`: those without a value."""

    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    words: tuple[str, ...] | None = Field(None, max_length=1000)
    none: bool = False


class Choice(Strict):
    """Samples that are shown, and their order: by a column's key, `uid` or `random`."""

    where: Text = ""
    search: Text = ""
    brushes: dict[str, Brush] = Field(default={}, max_length=64)
    order: str = "uid"
    descending: bool = False
    seed: int = Field(0, ge=0, lt=2**53)

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        words = (word for brush in self.brushes.values() for word in brush.words or ())
        if any(IMPOSSIBLE.search(one) for one in (self.where, self.search, *words)):
            raise ValueError("NUL, or half a character, cannot be asked for in SQL")
        return self

    @property
    def typed(self) -> list[str]:
        """Conditions that were typed."""
        parts = [f"(\n{self.where}\n)" if "\n" in self.where or "--" in self.where else f"({self.where})"]
        found = parts if self.where.strip() else []
        return found + ([f"contains(lower(text), lower({literal(self.search)}))"] if self.search else [])

    def conditions(self, columns: Mapping[str, Column]) -> list[str]:
        """All conditions on `sample_outcomes`."""
        return self.typed + [condition(brush, column_of(columns, key)) for key, brush in self.brushes.items()]

    def query(self, columns: Mapping[str, Column]) -> str:
        """The question whose answer is the samples shown, one uid a row."""
        conditions = self.conditions(columns)
        return f"SELECT uid FROM {OUTCOMES}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")


def column_of(columns: Mapping[str, Column], key: str) -> Column:
    """The column of a key; raises ChoiceError."""
    if key not in columns:
        raise ChoiceError(f"no column {key[:80]!r} in this run; reload the page to see those there are")
    return columns[key]


def condition(brush: Brush, column: Column) -> str:
    """A brush as SQL."""
    if brush.words is not None:
        return column.among(list(brush.words), brush.none)
    return column.within(brush.low, brush.high, brush.none)


def parsed(text: str) -> Choice:
    """A choice out of JSON; raises ChoiceError."""
    try:
        return Choice.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ChoiceError(f"not a choice of samples: {place}: {first['msg']}") from error
