"""Pools that commands name by a catalog."""

from __future__ import annotations

from pathlib import Path

from tasks.catalog.catalogs import check_sources, find_catalog, load_catalog
from tasks.pool.naming import finished_pool
from tasks.pool.pools import plan_pool


def pool_of_catalog(name: str, home: Path) -> Path:
    """The directory of the pool of a catalog (a file or a name); built first where it is not there yet."""
    catalog = load_catalog(find_catalog(name))
    check_sources(catalog)
    return finished_pool(plan_pool(catalog.pool.sources, home, catalog.pool.build_options()))
