"""What the names in a subset expression stand for: filters, subset files, and the subsets of runs.

A name is, in this order: `run` (with the id and, if not the chosen one, the round of a run), `score` (with a table of
scores, and how many stay), a filter of `catalogs/filters`, a subset that was saved under that name in the home, or a
path, of a filter (`.sql`) or a subset.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tasks.files.artefacts import canonical_json, file_digest
from tasks.homes.working_copies import at_hand
from tasks.subset.expressions import Combination, Expression, ExpressionError, Operand, expanded, operands, parse
from tasks.subset.filters import Filter, FilterError, Value, load_filter, load_filters
from tasks.subset.languages import CALL, model_name
from tasks.subset.scores import ScoreSource, score_source
from tasks.tables.published import counts_file
from tasks.tables.run_folders import NoRun, chosen_round, run_directory


@dataclass(frozen=True)
class FilterSource:
    """A filter with the values of its parameters."""

    filter: Filter
    values: dict[str, Value]

    @property
    def place(self) -> Path:
        """The file it is read from."""
        return self.filter.path

    @property
    def needs_language(self) -> bool:
        """Whether its query asks for the language of captions."""
        return bool(CALL.search(self.filter.query))

    @property
    def told(self) -> dict[str, Any]:
        """What makes its choice, for the record of a subset."""
        record = {"filter": self.filter.name, "digest": self.filter.digest, "parameters": self.values}
        return record | ({"language_model": model_name()} if self.needs_language else {})


@dataclass(frozen=True)
class FileSource:
    """A subset file: `.npy`, bare records, or Parquet with uid and count."""

    path: Path
    of: str

    @property
    def place(self) -> Path:
        """The file it is read from."""
        return self.path

    @property
    def told(self) -> dict[str, Any]:
        """What it is, for the record of a subset."""
        return {"file": self.of, "digest": file_digest(self.path)}


Source = FilterSource | FileSource | ScoreSource


def saved_subset(home: Path, name: str) -> Path:
    """Where a home keeps the subset of a name."""
    return Path(home) / "subsets" / f"{name}.npy"


def saved_subsets(home: Path) -> list[str]:
    """Names of the subsets that were saved in a home."""
    return sorted(path.stem for path in (Path(home) / "subsets").glob("*.npy"))


def resolved(text: str, home: Path, base: Path | None = None) -> tuple[Expression, list[Source]]:
    """The tree of an expression, and what each operand stands for, from left to right; paths are below `base`.

    Raises ExpressionError, with a caret, for what cannot be read, is not there, or has wrong arguments.
    """
    tree, filters = parse(text), load_filters()
    sources = []
    for operand in operands(tree):
        try:
            sources.append(_source(operand, home, base or Path(), filters))
        except (FilterError, NoRun) as error:
            raise ExpressionError(text, operand.at, str(error)) from error
    return tree, sources


def identity(text: str, home: Path, base: Path | None = None) -> str:
    """What an expression's choice is a function of, beside the pool: equal for equal filters and contents of files,
    whatever these are called."""
    tree, sources = resolved(text, home, base)
    keys = iter(canonical_json({k: v for k, v in source.told.items() if k != "file"}).decode() for source in sources)

    def told(tree: Expression) -> str:
        return f"({told(tree.left)} {tree.sign} {told(tree.right)})" if isinstance(tree, Combination) else next(keys)

    return told(tree)


def _source(operand: Operand, home: Path, base: Path, filters: dict[str, Filter]) -> Source:
    name, given = operand.name, dict(operand.arguments)
    path = base / expanded(name)
    if "/" not in name:
        at_hand(saved_subset(home, name))
    if name == "run":
        return _run_source(home, given)
    if name == "score":
        return score_source(given, home, base)
    if name in filters:
        return FilterSource(filters[name], filters[name].bind(given))
    if path.suffix == ".sql" and path.is_file():
        own = load_filter(path)
        return FilterSource(own, own.bind(given))
    place = saved_subset(home, name) if "/" not in name and saved_subset(home, name).is_file() else path
    if name and place.is_dir():
        raise FilterError(f"{place} is a directory; a subset is a file: .npy, or Parquet with uid and count")
    if not place.is_file():
        known = [*filters, "run", "score", *saved_subsets(home)]
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"filters and saved subsets: {', '.join(known)}"
        raise FilterError(f"no filter, saved subset or file {name!r}; {hint}")
    if given:
        raise FilterError(f"{name} is a file with a subset, and takes no arguments")
    return FileSource(place, name)


def _run_source(home: Path, given: dict[str, str]) -> FileSource:
    if "id" not in given or given.keys() - {"id", "round"} or not given.get("round", "0").isdecimal():
        raise FilterError(
            'run takes the id of a run and, if not the chosen one, a round: run(id="fashion-1a2b", round=3)'
        )
    run = run_directory(home, given["id"])
    number = int(given["round"]) if "round" in given else chosen_round(home, run.name)
    counts = None if number is None else counts_file(home, run.name, number)
    if counts is None:
        raise FilterError(f"run {run.name} has no counts of round {'chosen' if number is None else number} yet")
    return FileSource(counts, f"run {run.name}, round {number}")
