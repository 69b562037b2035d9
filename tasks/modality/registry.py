"""The kinds of training data that there are, and the recipe of a run directory, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from mgd_core.determinism import deterministic
from mgd_core.precision import PRECISIONS
from tasks.artefacts import digest
from tasks.base_catalog import BaseCatalog
from tasks.catalog import KINDS
from tasks.modality.base import Modality
from tasks.modality.pairs.modality import PairModality
from tasks.modality.recipe import PoolRecipe
from tasks.modality.texts.modality import TextModality
from tasks.pool_records import load_pool
from tasks.runs import Run
from tasks.units import PoolError

MODALITIES: dict[str, Modality] = {}
"""By the values of `model.kind`."""


def register(modality: Modality) -> None:
    """Make a kind of data known: catalogs of it can be read from now on, and curated."""
    for kind in modality.kinds:
        MODALITIES[kind], KINDS[kind] = modality, modality.catalog


def modality_of(catalog: BaseCatalog) -> Modality:
    """The kind of data that a catalog is of."""
    return MODALITIES[catalog.kind]


@contextmanager
def open_recipe(directory: Path) -> Iterator[PoolRecipe]:
    """The recipe of a run directory, under its catalog's threads, determinism and precision; restored on exit."""
    run = Run.load(directory)
    runtime = run.catalog.runtime
    with deterministic(runtime.threads), PRECISIONS[runtime.precision].switched():
        yield _opened(Path(directory), digest(run.record))


@lru_cache(maxsize=2)
def _opened(directory: Path, record: str) -> PoolRecipe:
    """The recipe of a run, by the digest of its record: tests and comparison of a run may change."""
    run = Run.load(directory)
    pool = load_pool(run.pool_directory)
    if pool is None:
        raise PoolError(f"the pool of run {run.id} is gone from {run.pool_directory}; run `mgd curate` again")
    return modality_of(run.catalog).open(run, pool)


for one in (PairModality(), TextModality()):
    register(one)
