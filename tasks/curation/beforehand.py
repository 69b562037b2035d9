"""What is looked at before anything is trained: all that can be known then is told then, not after the rounds.

Before the pool is built: the sources, the home, the device, budgets that this machine cannot have, and the model, which
is built once; targets and tests, of which it is told what is read and what is left. With the pool: whether it has as
many samples as a batch, the truth that an oracle needs, and whether a round could move anything at all.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as types
import torch

from tasks.catalog.catalogs import BaseCatalog, CatalogError, check_sources
from tasks.catalog.recipe_options import DescentOptions
from tasks.curation.comparison import TRUTH_COLUMN
from tasks.curation.expression_baselines import check_baselines
from tasks.curation.glance import named_files
from tasks.curation.ranking import check_groupings
from tasks.files.artefacts import digest
from tasks.files.progress import say
from tasks.modality.machine import check_devices, check_home
from tasks.modality.registry import modality_of
from tasks.pool.pools import PoolRecord
from tasks.scoring.groups import check_groups

_TOLD: dict[str, list[str]] = {}
"""What a process found out of model and targets as they are: to build a model takes seconds, and a command and the
flow that it runs both ask."""
MOST_EXCHANGED = 0.5
"""Share of the masked samples that can rise while as many fall."""


def check_beforehand(catalog: BaseCatalog, home: Path) -> None:
    """See that what the catalog names is there, and that its model can be trained on this machine.

    Raises:
        CatalogError: naming the first thing that is not so, and what to do.
        HomeError: nothing can be written in ``home``.
        LanguageModelError: the language model's folder or its tokenizer cannot be used.
        EvalSetError: an evaluation set cannot be used as it is.
    """
    check_sources(catalog)
    check_baselines(catalog, home)
    check_home(home)
    check_devices(catalog.runtime)
    _check_meanings(catalog)
    _check_budgets(catalog, home)
    key = digest([str(home), catalog.model_dump(mode="json"), named_files(catalog)])
    if key not in _TOLD:
        _TOLD[key] = modality_of(catalog).check(catalog, home)
    for note in _TOLD[key]:
        say(note)


def check_pool(catalog: BaseCatalog, pool: PoolRecord) -> None:
    """See that the pool is enough for what the catalog wants of it.

    Raises:
        CatalogError: it is not; says why and what to do.
    """
    with pq.ParquetFile(pool.samples_path) as file:
        n = file.metadata.num_rows
    batch, descent, where = catalog.learner.batch, catalog.descent, f"catalog '{catalog.name}'"
    if n < batch:
        raise CatalogError(
            f"{where}: the pool has {n:,} samples, fewer than a batch (learner.batch = {batch:,}). Take a smaller batch"
        )
    moved = descent.p * n * (descent.share if descent.exchanges else 1)
    if moved < 1:
        raise CatalogError(
            f"{where}: {_shares(descent)} of {n:,} samples are less than one, so no round moves anything"
        )
    if descent.exchanges and descent.max_count == 1 and descent.start is None:
        raise CatalogError(
            f"{where}: with descent.max_count = 1 no sample can be raised above the one copy it begins with, and "
            f"'{descent.rule}' lowers as many as it raises: no round moves anything. Take 2 or more, or rule 'sign'"
        )
    check_groups(pool.samples_path, catalog, descent.groups)
    if descent.diversity:
        check_groups(pool.samples_path, catalog, (descent.diverse_by,), "descent.diverse_by")
    check_groupings(catalog, pool.samples_path)
    if "oracle" in catalog.comparison.subsets:
        _check_truth(where, pool.samples_path, batch)


def _check_meanings(catalog: BaseCatalog) -> None:
    """Values that are allowed one by one, and together would do something else than they say."""
    descent, where = catalog.descent, f"catalog '{catalog.name}'"
    if descent.rounds and descent.exchanges and descent.share > MOST_EXCHANGED:
        raise CatalogError(
            f"{where}: descent.share = {descent.share:g} of the masked samples cannot rise while as many others fall; "
            f"with rule '{descent.rule}' it is {MOST_EXCHANGED:g} at most"
        )
    unsure = descent.surrogate == "path" or len(set(descent.probe_steps)) < 2
    if descent.rounds and descent.rule == "confident" and unsure and not descent.momentum:
        raise CatalogError(
            f"{where}: with one probe step, and descent.momentum = 0, nothing tells how sure a g is, so rule "
            "'confident' would move nothing. Take two probe steps or more, or keep earlier rounds (descent.momentum)"
        )
    if catalog.runtime.precision == "tf32" and catalog.runtime.device == "cpu":
        raise CatalogError(
            f"{where}: runtime.precision = 'tf32' is arithmetic of NVIDIA GPUs, and runtime.device is 'cpu'. Take "
            "'float32', or another device"
        )


def _check_budgets(catalog: BaseCatalog, home: Path) -> None:
    """Budgets beyond what there is at all; what is free at the moment may be taken by this run's own states."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    on_cpu = catalog.runtime.device == "cpu"
    device = memory if on_cpu else torch.cuda.get_device_properties(catalog.runtime.device).total_memory
    there = {"device_memory": device, "host_memory": memory, "disk_space": shutil.disk_usage(home).total}
    for key, most in there.items():
        asked = getattr(catalog.descent, key)
        if asked is not None and asked > most:
            raise CatalogError(
                f"catalog '{catalog.name}': descent.{key} = {asked / 2**30:,.1f} GiB, but there are "
                f"{most / 2**30:,.1f} GiB in all, and the training needs some besides"
            )


def _shares(descent: DescentOptions) -> str:
    share = f" x descent.share = {descent.share:g}" if descent.exchanges else ""
    return f"descent.p = {descent.p:g}{share}"


def _check_truth(where: str, samples: Path, batch: int) -> None:
    """See that the pool tells of every sample whether it is right."""
    instead = "Remove 'oracle' from comparison.subsets"
    schema = pq.read_schema(samples)
    if TRUTH_COLUMN not in schema.names:
        raise CatalogError(
            f"{where}: comparison.subsets asks for 'oracle', but the pool has no column '{TRUTH_COLUMN}': nobody knows "
            f"which of its samples are right. {instead}"
        )
    if not types.is_boolean(schema.field(TRUTH_COLUMN).type):
        raise CatalogError(
            f"{where}: comparison.subsets asks for 'oracle', but the pool's column '{TRUTH_COLUMN}' is "
            f"{schema.field(TRUTH_COLUMN).type}, not true and false. {instead}"
        )
    column = pq.read_table(samples, columns=[TRUTH_COLUMN])[TRUTH_COLUMN]
    right = pc.sum(column).as_py() or 0
    if column.null_count or right < batch:
        told = f"is empty for {column.null_count:,} samples" if column.null_count else f"is true of {right:,} samples"
        raise CatalogError(
            f"{where}: comparison.subsets asks for 'oracle', but the pool's column '{TRUTH_COLUMN}' {told}, and a "
            f"batch is {batch:,}. {instead}"
        )
