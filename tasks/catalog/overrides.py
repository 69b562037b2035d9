"""Overrides: keys of a catalog said otherwise for one run, `{"descent.rounds": 5}`, without another file.

They are laid over the file before it is checked, so an unknown key is answered for as one in the file is, and what they
say is part of a run's identity like the rest. The run keeps the catalog as it was with them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.catalog.files import CatalogError, read_toml
from tasks.files.local_files import absolute

Overrides = Mapping[str, Any]
"""Values by dotted key; None takes the key out, so that its default holds."""


def parsed_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Overrides as a command line gives them, `descent.rounds=5`; a value that is no TOML is a text as it stands.

    Raises:
        CatalogError: one has no key, or no `=`.
    """
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise CatalogError(f"--set {text!r}: a key and its value are expected, say --set descent.rounds=5")
        found[key.strip()] = _read(value.strip())
    return found


def sources(path: Path, pool: str | None, targets: str | None) -> dict[str, Any]:
    """Overrides of where the pool of a catalog lies, and the set that all of its roles are parts of, or the folder of
    its sets; relative paths are those of whoever says it, not the catalog's."""
    found = {} if pool is None else {"pool.source": absolute(pool, Path.cwd())}
    said = (read_toml(path).get("targets") or {}) if targets is not None else {}
    if targets is not None and "evaluation_sets" in said:
        found["targets.evaluation_sets"] = absolute(targets, Path.cwd())
    elif targets is not None:
        tests = said.get("tests") or {}
        roles = ("target", "heldout", *(f"tests.{name}" for name in tests))
        found |= {f"targets.{role}.source": absolute(targets, Path.cwd()) for role in roles}
    return found


def overridden(content: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """The content of a catalog with ``overrides`` laid over it; ``content`` stays as it is.

    Raises:
        CatalogError: a key leads through something that is no section.
    """
    changed = dict(content)
    for key, value in overrides.items():
        changed = _with(changed, key, key.split("."), value)
    return changed


def as_toml(content: Mapping[str, Any], place: str = "") -> str:
    """The content of a catalog as the text of a TOML file."""
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}\n" for key, value in content.items() if key not in tables]
    parts = [f"\n[{place}{_key(key)}]\n{as_toml(value, f'{place}{_key(key)}.')}" for key, value in tables.items()]
    return "".join(lines + parts)


def _with(content: Mapping[str, Any], key: str, parts: list[str], value: Any) -> dict[str, Any]:
    changed, (first, *rest) = dict(content), parts
    if not rest and value is None:
        changed.pop(first, None)
    elif not rest:
        changed[first] = value
    else:
        inner = changed.get(first, {})
        if not isinstance(inner, Mapping):
            raise CatalogError(f"no key {key!r} can be set: {first!r} has a value, and is no section")
        changed[first] = _with(inner, key, rest, value)
    return changed


def _read(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else str(value)
