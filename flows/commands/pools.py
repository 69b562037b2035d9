"""Pools that commands name by a catalog."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flows.runtime.locks import exclusive
from tasks.catalog.base import BaseCatalog
from tasks.catalog.catalogs import check_sources, find_catalog, load_catalog
from tasks.files.artefacts import unit_name
from tasks.files.processes import cores, mapped
from tasks.pool.naming import finished_pool
from tasks.pool.pools import plan_pool
from tasks.sharding.pools import shards_of
from tasks.sharding.sharding import write_shards
from tasks.sharding.writing import write_shard


def pool_of_catalog(name: str, home: Path) -> Path:
    """The directory of the pool of a catalog (a file or a name); built first where it is not there yet."""
    catalog = load_catalog(find_catalog(name))
    check_sources(catalog)
    return finished_pool(plan_pool(_tars(catalog, home), home, catalog.pool.build_options()))


def _tars(catalog: BaseCatalog, home: Path) -> str | list[str]:
    """The tars or the sheet of the pool, without a flow: by processes of this command."""
    build = catalog.pool.build_options()
    shards = shards_of(catalog.pool.sources, home, build, catalog.pool.sharding)
    if shards is None:
        return catalog.pool.sources
    out, workers = str(shards.directory), cores()
    if not shards.are_there:
        carry = partial(mapped, write_shard, workers=workers)
        with exclusive(home / ".locks" / "shard" / unit_name(out)):
            write_shards(shards.plan, out, home, shards.options, build, carry, workers)
    return out
