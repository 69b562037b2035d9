"""Catalog files: found by path or by the name of one that comes with mgd, read, and answered for when they are wrong.

Every kind of catalog (a curation's, tasks.catalog.catalogs; a study's, tasks.catalog.study_options) is a frozen
pydantic model that refuses unknown keys; here the model's complaints become a user's: which file, which key, and the
nearest valid one.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mgd_core.errors import UserError
from tasks.files.package_data import CATALOGS

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

# Parts of a problem's place that name one of several forms that a value may have, and no key.
FORM = re.compile(r"^(function-\w+|tuple|list|literal|lax-or-strict|nullable)\[|^constrained-")
PLAIN = {
    "string_type": "text is expected, in quotes",
    "tuple_type": "a list is expected, in square brackets",
    "list_type": "a list is expected, in square brackets",
    "dict_type": "a table is expected: { name = value }",
}
RENAMED_KEYS = {"descent.memory": "descent.momentum"}
NAMES = "^[a-z0-9]"
STUDIES = CATALOGS / "studies"
LARGEST = 1 << 22
"""Bytes of a file that somebody wrote by hand, at most."""

Model = TypeVar("Model", bound="BaseModel")


class CatalogError(UserError, ValueError):
    """A catalog that cannot be used: says which file and key, and what to write instead."""


def find_catalog(name: str) -> Path:
    """Path of a catalog given as a file, or by the name of one that travels with the package.

    Raises:
        CatalogError: no such file or name; lists the names there are.
    """
    return find_file("catalog", name, CATALOGS)


def find_study(name: str) -> Path:
    """The same of a study's catalog."""
    return find_file("study", name, STUDIES)


def find_file(kind: str, name: str, folder: Path) -> Path:
    """Path of a catalog given as a file, or by the name of one in ``folder``; ``kind`` is what a message calls it.

    Raises:
        CatalogError: no such file or name; lists the names there are.
    """
    for candidate in (Path(name), folder / f"{name}.toml"):
        if _is(candidate, Path.is_file):
            return candidate.resolve()
    known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
    if _is(Path(name), Path.exists):
        raise CatalogError(
            f"{kind} '{name}' is no file. Name a TOML file, or one of those that come with mgd ({known})"
        )
    raise CatalogError(f"no {kind} '{name[:300]}': neither a file nor one of those that come with mgd ({known})")


def read_file(path: Path, model: type[Model]) -> Model:
    """Read a TOML file and check it against ``model``.

    Raises:
        CatalogError: with every problem found: file, key, value, and the nearest valid key for a typo.
    """
    return checked(path, model, read_toml(path))


def checked(path: Path, model: type[Model], content: object) -> Model:
    """The content of a file as ``model`` has it.

    Raises:
        CatalogError: as for ``read_file``.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise CatalogError("\n".join(_explain(path, model, error))) from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as it is; raises CatalogError where it is none."""
    text = read_text(path, "the catalog")
    if not text.strip():
        raise CatalogError(f"{path}: the catalog is empty; copy one of those that come with mgd, in {CATALOGS}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise CatalogError(f"{path}: not valid TOML: brackets in brackets without end") from None


def read_text(path: Path, what: str) -> str:
    """The text of a small file that a user wrote, in UTF-8 whatever the locale, with a byte order mark or without.

    Raises:
        CatalogError: it cannot be read, is no text in UTF-8, or is too large to be ``what`` it should be.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise CatalogError(f"{path}: {path.stat().st_size:,} bytes are too many for {what}; is it another file?")
        data = path.read_bytes()
    except OSError as error:
        raise CatalogError(f"{path}: cannot read {what}: {error.strerror or error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CatalogError(f"{path}: line {line} is not text in UTF-8; save {what} as UTF-8") from None


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # a name too long, with a NUL, in a place that may not be looked into
        return False


def _explain(path: Path, model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        place = [str(part) for part in problem["loc"] if part != "[key]" and not FORM.search(str(part))]
        key = repr(".".join(place)[:300])[1:-1]
        told = _plainly(problem["type"], problem["msg"], problem.get("ctx", {}))
        if problem["type"] == "extra_forbidden":
            options = sorted(_fields_at(model, problem["loc"][:-1]))
            near = difflib.get_close_matches(str(problem["loc"][-1]), options, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"valid keys here: {', '.join(options)}"
            hint = f"it is now called '{RENAMED_KEYS[key]}'" if key in RENAMED_KEYS else hint
            yield f"{path}: unknown key '{key}'; {hint}"
        elif problem["type"] == "missing":
            yield f"{path}: key '{key}' is missing"
        elif not key:
            yield f"{path}: {told}"
        elif problem["loc"][-1] == "[key]":
            yield f"{path}: key '{key}': {told}"
        else:
            yield f"{path}: key '{key}' = {repr(problem['input'])[:300]}: {told}"


def _plainly(kind: str, told: str, context: dict[str, Any]) -> str:
    """What pydantic says, in the words of TOML."""
    if str(context.get("pattern", "")).startswith(NAMES):
        return "a name is of small letters, digits, - and _, and begins with a letter or a digit"
    return PLAIN.get(kind, told.removeprefix("Value error, "))


def _fields_at(model: Any, location: tuple[int | str, ...]) -> set[str]:
    """Field names of the section of ``model`` at ``location``."""
    from pydantic import BaseModel

    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            nested = [a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type)]
            model = next((a for a in nested if issubclass(a, BaseModel)), annotation)
    return set(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else set()
