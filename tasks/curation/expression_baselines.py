"""Rivals that the catalog names by an expression of `mgd subset`: asked of the pool before anything is trained.

`[comparison] rivals = { l14 = "clip_score(fraction=0.3)", mine = "my.npy" }`. Each keeps its own samples and copies.
The counts are kept in the run under the digest of filters, parameters and contents of files, so a file that changes
while a run goes on changes nothing until the command is given again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mgd_core.errors import UserError
from tasks.catalog.catalogs import BaseCatalog
from tasks.files.artefacts import is_done, publish_json, publishing, read_json
from tasks.files.plurals import counted
from tasks.files.progress import say
from tasks.homes.working_copies import removed
from tasks.modality.recipe import Counts, PoolRecipe
from tasks.subset.algebra import chosen_counts
from tasks.subset.candidates import pool_candidates
from tasks.subset.sources import identity


class BaselineError(UserError, ValueError):
    """A rival that the catalog names cannot be had, or not trained on; says which and why."""


def check_baselines(catalog: BaseCatalog, home: Path) -> None:
    """See that every rival's filters, files and runs are there, before there is a pool.

    Raises BaselineError.
    """
    for name, text in catalog.comparison.rivals.items():
        with _told(name):
            identity(text, home)


def prepare_baselines(recipe: PoolRecipe) -> None:
    """Ask every rival of the pool, and keep its counts; says how many samples each has.

    Raises BaselineError where one chooses nothing, what is not in the pool, or too little to fill a batch.
    """
    for name in recipe.catalog.comparison.rivals:
        _prepare(recipe, name)


def baseline_counts(recipe: PoolRecipe, name: str) -> Counts:
    """Counts (n,) of a rival of the catalog, as they were when the command was given."""
    path = _path(recipe, name)
    if not path.exists():
        _prepare(recipe, name)
    counts: Counts = np.load(path)
    return counts


def _prepare(recipe: PoolRecipe, name: str) -> None:
    text, path = recipe.catalog.comparison.rivals[name], _path(recipe, name)
    with _told(name):
        key = recipe.run.key("rival", identity(text, recipe.run.home))
        if path.exists() and is_done(path.with_suffix(".json"), key):
            counts, missing = np.load(path), read_json(path.with_suffix(".json"))["missing"]
        else:
            with pool_candidates(recipe.run.home, recipe.pool) as candidates:
                counts, asked = chosen_counts(candidates, text, recipe.uids)
            missing = [str(one) for one in asked.missing]
            removed(path.with_suffix(".json"))
            path.with_suffix(".json").unlink(missing_ok=True)  # counts without their record are not taken for others
            with publishing(path) as file:
                np.save(file, counts)
            record = {"key": key, "expression": asked.expression, "operands": asked.operands, "missing": missing}
            publish_json(path.with_suffix(".json"), record)
    distinct, total = int((counts > 0).sum()), int(counts.sum())
    if distinct < recipe.catalog.learner.batch:
        raise BaselineError(
            f"comparison.rivals.{name} has {counted(distinct, 'distinct sample')}, and learner.batch is "
            f"{recipe.catalog.learner.batch}: copies of one would meet in every batch. Take a larger subset, or a "
            "smaller batch"
        )
    for one in missing:
        say(f"rival {name}: {one}")
    copies = "" if distinct == total else f", {total:,} with copies"
    say(f"rival {name}: {distinct:,} of {counted(len(recipe), 'sample')}{copies}")


def _path(recipe: PoolRecipe, name: str) -> Path:
    return recipe.run.work("rivals", f"{name}.npy")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """A user's mistake in an expression is told with the rival's name."""
    try:
        yield
    except (UserError, OSError) as error:
        raise BaselineError(f"comparison.rivals.{name}: {error}") from error
