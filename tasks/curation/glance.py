"""Curations that are done, seen at a glance: what PyTorch has to be loaded for, which takes seconds, is not asked.

A finished run's record holds a digest of what the catalog says and of size and time of the files that it names. Where
that is as it was, the run stands; where not, `tasks.curation.finished` asks the whole question.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tasks.catalog.catalogs import BaseCatalog, check_sources, load_catalog
from tasks.catalog.overrides import Overrides
from tasks.files.artefacts import DamagedRecord, digest, read_json
from tasks.files.local_files import MAGIC
from tasks.homes.working_copies import at_hand
from tasks.pool.pools import plan_pool
from tasks.pool.record import PoolRecord, check_budget, load_pool
from tasks.runs.run import Run
from tasks.sharding.pools import tars_of
from tasks.subset.sources import identity
from tasks.tables.published import files

RECORD = "finished.json"


def glanced_run(path: Path, home: Path, overrides: Overrides | None = None) -> Path | None:
    """Directory of the run that has done all that the catalog in ``path``, with ``overrides``, asks for, and still has
    it; None where that cannot be seen at a glance."""
    catalog = load_catalog(path, overrides)
    records = sorted((home / "runs").glob(f"{catalog.name}-*/{RECORD}"))
    if not records:
        return None
    check_sources(catalog)
    pool = built_pool(catalog, home)
    if pool is None:
        return None
    seen = glance(home, catalog, pool)
    for record in records:
        if _noted(record) == seen and stands(run := Run.load(record.parent)) and _same_packages(run):
            return run.directory
    return None


def built_pool(catalog: BaseCatalog, home: Path) -> PoolRecord | None:
    """The pool that the catalog names as it is now, if it is built; raises TooManyRejects."""
    build = catalog.pool.build_options()
    tars = tars_of(catalog.pool.sources, home, build, catalog.pool.sharding)
    pool = load_pool(plan_pool(tars, home, build).directory) if tars else None
    if pool is not None:
        check_budget(build, pool)
    return pool


def glance(home: Path, catalog: BaseCatalog, pool: PoolRecord) -> str | None:
    """A digest of what can be seen without reading large files; None where some of it lies in a store."""
    if any("://" in place or MAGIC & set(place) for place in _named(catalog)):
        return None
    start = catalog.descent.start and identity(catalog.descent.start, home)
    said = [catalog.model_dump(mode="json"), pool.samples_digest, start, rivals(home, catalog), named_files(catalog)]
    return digest(said)


def named_files(catalog: BaseCatalog) -> list[list[Any]]:
    """Path, size and time of every local file that the catalog names, or that is in a folder that it names; those of
    the pool apart."""
    return [stamp for place in _named(catalog) if "://" not in place for stamp in _stamps(Path(place))]


def rivals(home: Path, catalog: BaseCatalog) -> dict[str, str]:
    """What each of a catalog's rivals is, by name."""
    return {name: identity(expression, home) for name, expression in catalog.comparison.rivals.items()}


def stands(run: Run) -> bool:
    """Whether all that a finished run leaves is there."""
    results = [run.directory / "report.html", run.directory / "subset.npy"]
    parts = [files(run.home, run.id, table) for table in ("rounds", "choices", "evaluations")]
    tables = [found for part in parts for found in part.values()]
    at_hand(*results, *tables)
    return bool(tables) and all(one.exists() for one in (*results, *tables))


def _named(catalog: BaseCatalog) -> list[str]:
    return [place for key, place in catalog.places() if key != "pool.source"]


def _stamps(place: Path) -> list[list[Any]]:
    found = sorted(place.rglob("*")) if place.is_dir() else [place]
    entries = [(one, os.stat(one)) for one in found if one.is_file()]
    return [[str(one), entry.st_size, entry.st_mtime_ns] for one, entry in entries]


def _noted(record: Path) -> str:
    """The glance of a record; empty where it has none."""
    try:
        return str(read_json(record).get("glance") or "")
    except DamagedRecord:
        return ""


def _same_packages(run: Run) -> bool:
    """Whether the packages that bits depend on are those that the run was begun with."""
    try:
        return all(version(package) == then for package, then in run.record["versions"].items())
    except PackageNotFoundError:
        return False
