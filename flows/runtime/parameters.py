"""Parameters that flows share, as Prefect's run form shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import WithJsonSchema

from tasks.files.package_data import CATALOGS

_SHIPPED = {"title": "comes with mgd", "type": "string", "enum": sorted(path.stem for path in CATALOGS.glob("*.toml"))}
_FILE = {"title": "a TOML file, by its path where the flow runs", "type": "string"}
CatalogName = Annotated[str, WithJsonSchema({"anyOf": [_SHIPPED, _FILE]})]
"""A catalog: one of a list, or a path."""


def laid_over(overrides: Mapping[str, Any] | None, **fields: Any) -> dict[str, Any]:
    """Overrides of a catalog from a form: its own fields (`descent__rounds=5`; None: as the catalog says) and any
    others, which go first."""
    said = {key.replace("__", "."): value for key, value in fields.items() if value is not None}
    return said | dict(overrides or {})
