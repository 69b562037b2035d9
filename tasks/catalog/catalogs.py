"""The catalog: one TOML file that says everything about a curation.

Every option is a field with its unit and meaning; unknown keys are refused with the nearest valid one. A catalog is
read once, checked before any work, and copied into the run with its digest. What it is made of depends on the kind of
data, which `model.kind` tells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.catalog.base import BaseCatalog
from tasks.catalog.files import CatalogError, checked, find_catalog, read_toml
from tasks.catalog.overrides import Overrides, overridden
from tasks.catalog.pair_catalog import Catalog
from tasks.catalog.text_catalog import TextCatalog
from tasks.files.local_files import MAGIC, literal_prefix
from tasks.files.source_patterns import each_source

__all__ = ["BaseCatalog", "Catalog", "CatalogError", "check_sources", "find_catalog", "load_catalog"]

KINDS: dict[str, type[BaseCatalog]] = {"clip": Catalog, "causal_lm": TextCatalog}
"""The class of a catalog by its `model.kind`; `tasks.modality.registry` adds to it."""


def load_catalog(path: Path, overrides: Overrides | None = None) -> BaseCatalog:
    """Read and check a catalog of either kind, with ``overrides`` laid over it; source paths in it become absolute,
    relative ones being below the file's folder.

    Raises:
        CatalogError: with every problem found: file, key, value, and the nearest valid key for a typo.
    """
    content = overridden(read_toml(path), overrides or {})
    return checked(path, kind_of(content.get("model")), content).resolved(path.parent)


def load_pair_catalog(path: Path, command: str, overrides: Overrides | None = None) -> Catalog:
    """Read and check a catalog of image-text pairs; ``command`` is what takes no other.

    Raises:
        CatalogError: as for ``load_catalog``, or it is one of texts.
    """
    catalog = load_catalog(path, overrides)
    if not isinstance(catalog, Catalog):
        raise CatalogError(f"{path}: {command} works on image-text pairs and CLIPs; this catalog trains on texts")
    return catalog


def kind_of(model: Any) -> type[BaseCatalog]:
    """The class of a catalog, by its section `model` as it was read; a CLIP's where that says no kind."""
    return KINDS.get(str(model.get("kind")) if isinstance(model, dict) else "clip", Catalog)


def check_sources(catalog: BaseCatalog) -> None:
    """See that the local files a catalog names are there, before any work.

    Raises:
        CatalogError: naming the first that is missing, and how to get it if the catalog says so.
    """
    for key, place in catalog.places():
        for one in each_source(place):
            if "://" not in one and not MAGIC & set(literal_prefix(one)[1]) and not Path(one).exists():
                told = f"catalog '{catalog.name}': {key} {one} is not there. {catalog.pool.how_to_get}"
                raise CatalogError(told.rstrip())
