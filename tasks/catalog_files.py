"""Catalog files: found by path or by the name of one that comes with mgd, read, and answered for when they are wrong.

Every kind of catalog (a curation's, tasks.catalog; a study's, tasks.study_options) is a frozen pydantic model that
refuses unknown keys; here the model's complaints become a user's: which file, which key, and the nearest valid one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mgd_core.errors import UserError

CATALOGS = Path(__file__).resolve().parents[1] / "catalogs"
"""The catalogs, views, models and pools that travel with the package."""

Model = TypeVar("Model", bound=BaseModel)


class CatalogError(UserError, ValueError):
    """A catalog that cannot be used: says which file and key, and what to write instead."""


def find_file(kind: str, name: str, folder: Path) -> Path:
    """Path of a catalog given as a file, or by the name of one in ``folder``; ``kind`` is what a message calls it.

    Raises:
        CatalogError: no such file or name; lists the names there are.
    """
    for candidate in (Path(name), folder / f"{name}.toml"):
        if candidate.is_file():
            return candidate.resolve()
    known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
    raise CatalogError(f"no {kind} '{name}': neither a file nor one of those that come with mgd ({known})")


def read_file(path: Path, model: type[Model]) -> Model:
    """Read a TOML file and check it against ``model``.

    Raises:
        CatalogError: with every problem found: file, key, value, and the nearest valid key for a typo.
    """
    try:
        return model.model_validate(read_toml(path))
    except ValidationError as error:
        raise CatalogError("\n".join(_explain(path, model, error))) from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as it is; raises CatalogError where it is none."""
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: not valid TOML: {error}") from None


def _explain(path: Path, model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            options = sorted(_fields_at(model, problem["loc"][:-1]))
            near = difflib.get_close_matches(str(problem["loc"][-1]), options, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"valid keys here: {', '.join(options)}"
            yield f"{path}: unknown key '{key}'; {hint}"
        elif problem["type"] == "missing":
            yield f"{path}: key '{key}' is missing"
        elif not key:
            yield f"{path}: {problem['msg']}"
        else:
            yield f"{path}: key '{key}' = {problem['input']!r}: {problem['msg']}"


def _fields_at(model: Any, location: tuple[int | str, ...]) -> set[str]:
    """Field names of the section of ``model`` at ``location``."""
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            nested = [a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type)]
            model = next((a for a in nested if issubclass(a, BaseModel)), annotation)
    return set(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else set()
