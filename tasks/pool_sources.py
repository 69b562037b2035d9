"""Pool sources: a pool by whatever name a user has for it, its directory, its tars or its files of texts."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from tasks.catalog import check_sources, find_catalog, load_catalog
from tasks.option_types import LARGEST
from tasks.pool_records import BuildOptions, load_pool, told_rejects
from tasks.pools import PoolPlan, finish_pool, pending_units, plan_pool
from tasks.processes import cores, mapped
from tasks.progress import announce, say
from tasks.sheets import TABLE
from tasks.source_patterns import SourceError
from tasks.text_files import NAMES, find_texts
from tasks.text_records import TextColumns
from tasks.units import write_or_index_unit


def indexed(
    source: str,
    home: str | Path,
    workers: int | None = None,
    every: bool = True,
    budget: BuildOptions | None = None,
) -> Path:
    """The directory of the pool that `source` is or names; tars are indexed first, by `workers` processes.

    `every`: all samples are wanted, so what cannot be used counts against the budget (TooManyRejects). Otherwise
    whoever asks for single samples finds out which of them are missing.
    """
    if load_pool(source) is not None:
        return Path(source)
    lenient = BuildOptions(max_rejects=1.0, max_damaged_shards=LARGEST)
    options = (budget or BuildOptions()) if every else lenient
    if _names_texts(source):
        options = options.model_copy(update={"text": TextColumns()})
    return _finished(plan_pool(source, home, options), workers)


def _names_texts(source: str) -> bool:
    """Whether a source's files are texts, by their names: tars may hold either, and are taken for pairs."""
    if (Path(source) / TABLE).is_file():  # a sheet
        return False
    texts = [name for name in NAMES if name != "*.tar"]
    try:
        return all(any(fnmatch(url, name) for name in texts) for url in find_texts(source).urls)
    except SourceError:
        return False


def built(catalog: str, home: str | Path, workers: int | None = None) -> Path:
    """The directory of the pool of a catalog (a file or a name); built first where it is not there yet."""
    options = load_catalog(find_catalog(catalog))
    check_sources(options)
    return _finished(plan_pool(options.pool.sources, home, options.pool.build_options()), workers)


def _finished(plan: PoolPlan, workers: int | None) -> Path:
    pending = pending_units(plan)
    for done, _ in enumerate(mapped(write_or_index_unit, pending, workers or cores()), 1):
        announce("indexing", done, len(pending))
    record = finish_pool(plan)
    if pending and record.rejects:
        say(told_rejects(record))
    return record.directory
