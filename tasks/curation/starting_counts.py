"""The counts of round 0: every sample once, or what the catalog's `descent.start` chooses."""

from __future__ import annotations

import numpy as np

from tasks.files.plurals import counted
from tasks.files.progress import say
from tasks.modality.recipe import Counts, PoolRecipe
from tasks.subset.algebra import chosen_counts
from tasks.subset.candidates import pool_candidates
from tasks.subset.files import SubsetError

MOST = 2**31 - 1
"""Samples of a training multiset."""


def starting_counts(recipe: PoolRecipe) -> Counts:
    """Counts (n,) of round 0, in uid order; says what was chosen, and what a filter could not judge.

    Raises ExpressionError, FilterError or SubsetError where the start cannot be had from this pool.
    """
    start, n = recipe.catalog.descent.start, len(recipe)
    if start is None:
        return np.ones(n, np.int64)
    with pool_candidates(recipe.run.home, recipe.pool) as candidates:
        counts, asked = chosen_counts(candidates, start, recipe.uids)
    if int(counts.sum()) > MOST:
        raise SubsetError(f"descent.start: {start}: {int(counts.sum()):,} samples with copies, {MOST:,} are the most")
    for missing in asked.missing:
        say(f"descent.start: {missing}")
    say(f"descent.start: {int((counts > 0).sum()):,} of {counted(n, 'sample')}, {int(counts.sum()):,} with copies")
    return counts
