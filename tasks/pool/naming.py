"""Pool sources: a pool by whatever name a user has for it, its directory, its tars or its files of texts."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from tasks.files.option_types import LARGEST
from tasks.files.processes import cores, mapped
from tasks.files.progress import announce, say
from tasks.files.source_patterns import SourceError
from tasks.pool.index_jobs import write_or_index_unit
from tasks.pool.pools import PoolPlan, finish_pool, pending_units, plan_pool
from tasks.pool.record import BuildOptions, load_pool, told_rejects
from tasks.pool.sheets import TABLE
from tasks.pool.text_files import NAMES, find_texts
from tasks.pool.text_records import TextColumns


def indexed(
    source: str, home: str | Path, workers: int | None = None, every: bool = True, budget: BuildOptions | None = None
) -> Path:
    """The directory of the pool that `source` is or names; tars are indexed first, by `workers` processes.

    `every`: all samples are wanted, so what cannot be used counts against the budget (TooManyRejects). Otherwise
    whoever asks for single samples finds out which of them are missing.
    """
    plan = indexing(source, home, every, budget)
    return Path(source) if plan is None else finished_pool(plan, workers)


def indexing(source: str, home: str | Path, every: bool = True, budget: BuildOptions | None = None) -> PoolPlan | None:
    """What indexing `source` takes (as `indexed`); None where it is the directory of a pool already."""
    if load_pool(source) is not None:
        return None
    lenient = BuildOptions(max_rejects=1.0, max_damaged_shards=LARGEST)
    options = (budget or BuildOptions()) if every else lenient
    if _names_texts(source):
        options = options.model_copy(update={"form": TextColumns()})
    return plan_pool(source, home, options)


def _names_texts(source: str) -> bool:
    """Whether a source's files are texts, by their names: tars may hold either, and are taken for pairs."""
    if (Path(source) / TABLE).is_file():  # a sheet
        return False
    texts = [name for name in NAMES if name != "*.tar"]
    try:
        return all(any(fnmatch(url, name) for name in texts) for url in find_texts(source).urls)
    except SourceError:
        return False


def finished_pool(plan: PoolPlan, workers: int | None = None) -> Path:
    """The directory of a planned pool; what is pending is written or indexed first, by `workers` processes."""
    pending = pending_units(plan)
    for done, _ in enumerate(mapped(write_or_index_unit, pending, workers or cores()), 1):
        announce("indexing", done, len(pending))
    record = finish_pool(plan)
    if pending and record.rejects:
        say(told_rejects(record))
    return record.directory
