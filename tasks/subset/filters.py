"""Filters: questions of `catalogs/filters/*.sql`, or of any file like them, that choose samples.

A filter's file is one SELECT over `samples` that gives `uid`, each once, or `uid` and `count` (how often, above 0),
under a header of comment lines:

    -- What it keeps, in plain words, over as many lines as it takes.
    -- exactly one of: fraction, threshold
    --   fraction (number 0..1, share) = none: Share of the samples that stays.
    --   score (column, cosine) = clip_l14_similarity_score: The column of scores.

Each indented line is a parameter: name, type, range, unit, default, meaning. A type is `number`, `whole`, `text`,
`boolean`, words to choose from (`b32 | l14`), or `column`, whose default may name several: the first that the pool has.
The SELECT has the values as `$fraction`; words and columns, which SQL does not take as values, as `{score}`. A default
is a value, `none` (NULL) or `required`.

Adding a filter is adding a file; no Python changes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from mgd_core.errors import UserError
from tasks.files.artefacts import digest
from tasks.files.package_data import CATALOGS
from tasks.tables.sql_headers import parse_header
from tasks.tables.sql_names import quoted

FILTERS = CATALOGS / "filters"
PARAMETER = re.compile(
    r"(?P<name>[a-z]\w*) \((?P<type>[^),]+)(?:, (?P<unit>[^)]+))?\) = (?P<default>[^:]+): (?P<doc>.+)"
)
RANGE = re.compile(r"(?P<kind>number|whole)(?: (?P<low>-?(?:\d*\.)?\d+)?\.\.(?P<high>-?\d+(?:\.\d*)?)?)?")
EXACTLY_ONE = "exactly one of"
TRUTH = {"true": True, "false": False}

Value = float | int | str | bool | None


class FilterError(UserError, ValueError):
    """A filter's file, or a value given to it, that is not what `filters` describes."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a filter; `kind` is number, whole, text, boolean, column or choice."""

    name: str
    kind: str
    default: str
    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """Its type as a person reads it, with range and unit."""
        kind = " | ".join(self.words) or self.kind
        ends = [f"{end:g}" if end is not None else "" for end in (self.low, self.high)]
        return kind + (f" {'..'.join(ends)}" if any(ends) else "") + (f", {self.unit}" if self.unit else "")

    def value(self, text: str) -> Value:
        """What `text` stands for; raises FilterError with what would do."""
        if self.kind in {"text", "column"}:
            return text
        if text == "none" and self.default == "none":
            return None
        if self.kind == "choice" and text in self.words:
            return text
        if self.kind == "boolean" and text in TRUTH:
            return TRUTH[text]
        number = _number(text, self.kind)
        if number is None or not self._holds(number):
            raise FilterError(f"{self.name} = {text}: not what it takes ({self.told})")
        return number

    def _holds(self, number: float) -> bool:
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)


@dataclass(frozen=True)
class Filter:
    """One filter: its query, what it keeps, its parameters, and groups of them of which one has to be given."""

    path: Path
    query: str
    doc: str
    parameters: dict[str, Parameter]
    exactly_one: tuple[tuple[str, ...], ...] = ()

    @property
    def name(self) -> str:
        """What an expression calls it."""
        return self.path.stem

    @cached_property
    def digest(self) -> str:
        """Digest of its query and parameters: comments may change."""
        parameters = [(p.name, p.told, p.default) for p in self.parameters.values()]
        return digest([" ".join(self.query.split()), parameters, self.exactly_one])

    def bind(self, given: Mapping[str, str]) -> dict[str, Value]:
        """Values of all parameters, from the texts given and the defaults; raises FilterError naming what is amiss."""
        for name in given:
            if name not in self.parameters:
                near = get_close_matches(name, self.parameters, 1)
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(self.parameters) or 'none'}"
                raise FilterError(f"{self.name} has no parameter {name!r}; {hint}")
        required = [(p.name,) for p in self.parameters.values() if p.default == "required"]
        for group in (*required, *self.exactly_one):
            there = [name for name in group if given.get(name, "none") != "none"]
            if len(there) != 1:
                one = " or ".join(f"{name} ({self.parameters[name].told})" for name in group)
                raise FilterError(f"{self.name} needs {one}" + (", only one of them" if there else ""))
        values = {p.name: p.value(given.get(p.name, p.default)) for p in self.parameters.values()}
        return values


def load_filters(directory: Path = FILTERS) -> dict[str, Filter]:
    """The filters of a directory, by name."""
    return {path.stem: load_filter(path) for path in sorted(directory.glob("*.sql"))}


def load_filter(path: str | Path) -> Filter:
    """The filter in a file; raises FilterError naming the line that is amiss."""
    path = Path(path)
    try:
        header = parse_header(path.read_text(encoding="utf-8-sig"), [EXACTLY_ONE])
    except UnicodeDecodeError as error:
        raise FilterError(f"{path}: not text in UTF-8 ({error}), so no filter") from error
    parameters = {one.name: one for one in (_parameter(path, note) for note in header.notes)}
    groups = tuple(tuple(name.strip() for name in line.split(",")) for line in header.said[EXACTLY_ONE])
    made = Filter(path, header.statement.removesuffix(";"), header.doc, parameters, groups)
    _check(made)
    return made


def columns_of(one: Filter, values: Mapping[str, Value], has: Iterable[str]) -> dict[str, str]:
    """The pool's column for each parameter of kind column: the first named that is in `has`.

    Raises FilterError with the columns there are.
    """
    there, chosen = {name.lower(): name for name in has}, {}
    for parameter in one.parameters.values():
        if parameter.kind == "column":
            words = {p.name: str(values[p.name]) for p in one.parameters.values() if p.kind == "choice"}
            named = str(values[parameter.name])
            # A column's own name may have a comma in it.
            whole = named.lower() in there
            names = [named] if whole else [_filled(name.strip(), words) for name in named.split(",")]
            found = [there[name.lower()] for name in names if name.lower() in there]
            if not found:
                raise FilterError(
                    f"{one.name}: the pool has no column {' or '.join(names)}, which {parameter.name} names. It has "
                    f"{', '.join(there.values())}. Name another ({one.name}({parameter.name}=...)), or join the "
                    "metadata that has it (the catalog's pool.metadata)"
                )
            chosen[parameter.name] = found[0]
    return chosen


def query_text(one: Filter, values: Mapping[str, Value], columns: Mapping[str, str]) -> str:
    """The filter's query with words and columns in their places; values stay as `$name`."""
    words = {p.name: str(values[p.name]) for p in one.parameters.values() if p.kind == "choice"}
    return _filled(one.query, words | {name: quoted(column) for name, column in columns.items()})


def _parameter(path: Path, line: str) -> Parameter:
    match = PARAMETER.fullmatch(line)
    if not match:
        raise FilterError(f"{path}: expected `name (type, unit) = default: meaning`, got {line!r}")
    kind, bounds = match["type"].strip(), RANGE.fullmatch(match["type"].strip())
    words = tuple(word.strip() for word in kind.split("|")) if "|" in kind else ()
    if not (bounds or words or kind in {"text", "boolean", "column"}):
        raise FilterError(f"{path}: {match['name']}: no type {kind!r}; number, whole, text, boolean, column or a | b")
    low, high = (float(end) if end else None for end in (bounds["low"], bounds["high"])) if bounds else (None, None)
    kind = bounds["kind"] if bounds else "choice" if words else kind
    made = Parameter(match["name"], kind, match["default"].strip(), match["doc"], match["unit"] or "", low, high, words)
    if made.default not in {"none", "required"}:
        made.value(made.default)
    return made


def _check(one: Filter) -> None:
    """A header and a SELECT, which uses every parameter, and nothing that is none."""
    if not one.doc or not re.match(r"(SELECT|WITH|FROM)\b", one.query, re.IGNORECASE):
        raise FilterError(f"{one.path}: expected comment lines that say what it keeps, then one SELECT")
    texts = [one.query, *(p.default for p in one.parameters.values())]
    used = {name for text in texts for name in re.findall(r"[$]([a-z]\w*)|\{([a-z]\w*)\}", text)}
    bound = {a for a, _ in used if a} | {b for _, b in used if b}
    for name in sorted(bound ^ one.parameters.keys()):
        what = "is used but not declared" if name in bound else "is declared but not used"
        raise FilterError(f"{one.path}: parameter {name} {what} in the header")
    for name in {name for group in one.exactly_one for name in group} - one.parameters.keys():
        raise FilterError(f"{one.path}: `{EXACTLY_ONE}:` names {name}, which is no parameter")


def _number(text: str, kind: str) -> float | int | None:
    try:
        number = int(text) if kind == "whole" else float(text) if kind == "number" else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"\{([a-z]\w*)\}", lambda match: words.get(match[1], match[0]), text)
