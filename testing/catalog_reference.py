"""The reference of all keys of a catalog, made from the models that read it: `python -m testing.catalog_reference`.

Prints Markdown, which `docs/catalog.md` is a copy of. A key's meaning is the description of its field or the string
below it in the source, its type and bounds are those that are checked, so that nothing has to be said twice.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo

from tasks.catalog.catalogs import Catalog
from tasks.catalog.study_options import Study
from tasks.catalog.text_catalog import TextCatalog
from tasks.files.option_types import LARGEST

KINDS: dict[str, type[BaseModel]] = {
    "A curation of image-text pairs": Catalog,
    'A curation of texts (`[model] kind = "causal_lm"`)': TextCatalog,
    "A study of a classifier (`mgd attribute`, `schedule`, `poison`)": Study,
}
INTRODUCTION = """\
# Keys of a catalog

A catalog is one TOML file. Unknown keys are refused with the nearest valid one; paths are relative to the file.
To copy: [catalogs/](../catalogs), [catalogs/examples/](../catalogs/examples). Words: [glossary.md](glossary.md).

*Made by `python -m testing.catalog_reference > docs/catalog.md` from the models that read catalogs; a test compares.*
"""


def reference() -> str:
    """The whole page."""
    seen: dict[type[BaseModel], str] = {}
    lines = [INTRODUCTION]
    for title, model in KINDS.items():
        lines.append(f"## {title}\n")
        for place, section in _sections(model, ""):
            if section in seen:
                lines.append(f"`[{place}]`: {_same(place, seen[section])}\n")
                continue
            seen[section] = place
            lines += _section(place, section)
    return "\n".join(lines)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What each field of a section means, empty where nothing is said."""
    told: dict[str, str] = {}
    for base in reversed([one for one in model.__mro__ if issubclass(one, BaseModel) and one is not BaseModel]):
        told |= _strings_below(base)
    return {name: field.description or told.get(name, "") for name, field in model.model_fields.items()}


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """All sections of a kind of catalog, itself first."""
    return [section for _, section in _sections(model, "")]


def _sections(model: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield place, model
    for name, field in model.model_fields.items():
        nested, named = _nested(field)
        if nested is not None:
            yield from _sections(nested, ".".join(filter(None, [place, name, "NAME" if named else ""])))


def _nested(field: FieldInfo) -> tuple[type[BaseModel] | None, bool]:
    """The section that a field holds, and whether it holds several, by name."""
    parts = [field.annotation, *_parts(field.annotation)]
    found = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
    return found, getattr(field.annotation, "__origin__", None) is dict


def _parts(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield part
        yield from _parts(part)


def _same(place: str, other: str) -> str:
    return "as above." if place == other else f"as `[{other}]` above."


def _section(place: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"### `[{place}]`\n" if place else "### At the beginning of the file\n"
    yield f"{' '.join((model.__doc__ or '').split())}\n"
    told, schema = descriptions(model), model.model_json_schema()
    rows = [
        f"| `{name}` | {_type(field, schema['properties'][name])} | {_default(field)} | {_cell(told[name])} |"
        for name, field in sorted(model.model_fields.items(), key=lambda each: not each[1].is_required())
        if _nested(field)[0] is None
    ]
    if rows:
        yield "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _type(field: FieldInfo, schema: dict[str, Any]) -> str:
    if ByteSize in (field.annotation, *_parts(field.annotation)):
        return 'bytes, say `"8GiB"`'
    return _cell(_words(schema))


def _words(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_words(one) for one in schema["anyOf"] if one.get("type") != "null"))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{json.dumps(one)}`" for one in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {_words(schema['prefixItems'][0])}"
    if kind == "array":
        return f"list of {_words(schema['items'])}" if "items" in schema else "list"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"table of {_words(inner)}" if isinstance(inner, dict) else "table"
    words = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
    return " ".join(filter(None, [words.get(str(kind), "any value"), _bounds(schema)]))


def _bounds(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema and schema[key] != LARGEST]
    return ", ".join(told)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*needed*"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    return _cell(f"`{json.dumps(value, default=str, ensure_ascii=False)}`")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


@cache
def _strings_below(model: type[BaseModel]) -> dict[str, str]:
    """The strings below the fields of a class, as its source has them."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    told, name = dict[str, str](), ""
    for line in body.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            name = line.target.id
        elif name and isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            told[name] = str(line.value.value)
            name = ""
        else:
            name = ""
    return told


if __name__ == "__main__":
    print(reference(), end="")
