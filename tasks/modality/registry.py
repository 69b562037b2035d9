"""The kinds of training data that there are, and the recipe of a directory, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mgd_core.autodiff.precision import PRECISIONS
from mgd_core.training.determinism import deterministic
from tasks.catalog.base import BaseCatalog
from tasks.catalog.catalogs import KINDS
from tasks.catalog.device_options import device_in_hand
from tasks.catalog.study_options import Study
from tasks.files.artefacts import digest
from tasks.homes.working_copies import at_hand
from tasks.modality.base import Modality
from tasks.modality.classification.modality import ClassificationModality, ClassificationRecipe, StudyRun
from tasks.modality.pairs.modality import PairModality
from tasks.modality.prepared import Prepared
from tasks.modality.recipe import PoolRecipe
from tasks.modality.texts.modality import TextModality
from tasks.runs.run import Run, WorkDirectory

MODALITIES: dict[str, Modality] = {}
"""By the values of `model.kind`."""


def register(modality: Modality) -> None:
    """Make a kind of data known: catalogs of it can be read from now on, and curated."""
    for kind in modality.kinds:
        MODALITIES[kind] = modality
        if issubclass(modality.catalog, BaseCatalog):
            KINDS[kind] = modality.catalog


def modality_of(catalog: BaseCatalog | Study) -> Modality:
    """The kind of data that a catalog is of."""
    return MODALITIES[catalog.kind]


@contextmanager
def open_recipe(directory: Path) -> Iterator[PoolRecipe]:
    """The recipe of a run directory, under its catalog's threads, determinism and precision; restored on exit."""
    run = Run.load(directory)
    at_hand(run.directory, run.pool_directory, *tables_of(run))
    runtime = run.catalog.runtime
    with deterministic(runtime.threads), PRECISIONS[runtime.precision].switched():
        yield _opened(Run, run.directory, digest(run.record), device_in_hand(runtime))


def prepared(directory: Path) -> list[Prepared]:
    """What is made of the pool of a run directory before its recipe is opened."""
    run = Run.load(directory)
    return modality_of(run.catalog).prepared(run)


@contextmanager
def open_study(directory: Path) -> Iterator[ClassificationRecipe]:
    """The same of a study's directory, whose convolutions on a GPU are in the precision that PyTorch gives them."""
    run = StudyRun.load(directory)
    at_hand(run.directory, *tables_of(run))
    with deterministic(run.catalog.runtime.threads):
        yield _opened(StudyRun, run.directory, digest(run.record), device_in_hand(run.catalog.runtime))


def tables_of(run: WorkDirectory) -> list[Path]:
    """Folders of a run's tables."""
    return list((run.home / "tables").glob(f"*/run={run.id}"))


@lru_cache(maxsize=2)
def _opened(kind: type[Run] | type[StudyRun], directory: Path, record: str, device: str) -> Any:
    """The recipe of a directory, by the digest of its record: tests and comparison of a run may change."""
    run: Run | StudyRun = kind.load(directory)
    runtime = run.catalog.runtime.model_copy(update={"device": device})
    run = replace(run, catalog=run.catalog.model_copy(update={"runtime": runtime}))  # type: ignore[arg-type]
    return modality_of(run.catalog).open(run)


for one in (PairModality(), TextModality(), ClassificationModality()):
    register(one)
