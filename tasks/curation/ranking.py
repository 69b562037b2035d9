"""Samples in the order in which a filter takes them: by its own scores, or by their means over groups of samples.

A filter's error on one sample is its own, what it is right about is often shared by all of a source: the mean over the
source (`loss_filter@source`) lifts a filter as it lifts g (`descent.groups`), so the two are compared alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mgd_core.descent.shrinkage import Codes
from tasks.catalog.base import BaseCatalog
from tasks.catalog.subset_names import filter_and_column
from tasks.curation.rounds import parameters_of
from tasks.files.artefacts import publishing
from tasks.modality.recipe import Ids, PoolRecipe, Scores
from tasks.modality.registry import modality_of
from tasks.scoring.groups import CROSS, check_groups, group_codes


def needs_round_0(catalog: BaseCatalog) -> bool:
    """Whether a subset of the comparison is picked by the model that round 0 trains."""
    return any(_needs_round_0(catalog, subset) for subset in catalog.comparison.subsets)


def check_groupings(catalog: BaseCatalog, samples: Path) -> None:
    """See that the groups can be had by which the comparison averages scores; raises GroupError."""
    for subset in catalog.comparison.subsets:
        _check(catalog, subset, samples)


def ranked(recipe: PoolRecipe, subset: str, round: int = 0) -> Ids:
    """Positions (n,) in the order of a filter, the best first; ``subset``: its name, with a column or without;
    ``round``: whose model judges, where one does.

    With a column (or clusters, as in `descent.groups`) whole groups follow each other, the lowest mean first, and in
    each the lowest score; samples of which the column says nothing are one group. Equal scores stay in the order of the
    pool.

    Raises:
        GroupError: there is no such grouping.
    """
    name, column = filter_and_column(subset)
    _check(recipe.catalog, subset, recipe.pool.samples_path)
    scores = filter_scores(recipe, name, round)
    if column is None:
        return np.argsort(scores, kind="stable")
    codes = group_codes(recipe, column, lambda: parameters_of(recipe, 0))
    return np.lexsort((scores, codes, group_means(scores, codes)))


def by_model(catalog: BaseCatalog, subset: str) -> bool:
    """Whether a filter, with a column or without, goes by a model."""
    return modality_of(catalog).baselines[filter_and_column(subset)[0]].by_model


def filter_scores(recipe: PoolRecipe, name: str, round: int = 0) -> Scores:
    """Scores (n,) of a filter, the best lowest, by the model of a round if it goes by one; computed once a run and
    round, 8 bytes a sample."""
    baseline = modality_of(recipe.catalog).baselines[name]
    by = f"-by-round-{round}" if baseline.by_model and round else ""
    path: Path = recipe.run.work("comparison", f"{name}{by}-scores.npy")
    if not path.exists():
        theta = parameters_of(recipe, round) if baseline.by_model else None
        found = baseline.scores(recipe, theta)
        with publishing(path) as file:
            np.save(file, found)
        if theta is not None and round:  # round 0's model is asked by many, later ones only for their scores
            modality_of(recipe.catalog).forget(recipe, theta)
    loaded: Scores = np.load(path)
    return loaded


def group_means(scores: Scores, codes: Codes) -> Scores:
    """The mean score of every sample's group (n,); ``codes`` (n,): the groups, from 0."""
    means: Scores = np.bincount(codes, scores) / np.maximum(np.bincount(codes), 1)
    return means[codes]


def _check(catalog: BaseCatalog, subset: str, samples: Path) -> None:
    column = filter_and_column(subset)[1]
    if column is not None:
        check_groups(samples, catalog, (column,), f"comparison.subsets, {subset!r}")


def _needs_round_0(catalog: BaseCatalog, subset: str) -> bool:
    name, column = filter_and_column(subset)
    baselines = modality_of(catalog).baselines
    return (name in baselines and baselines[name].by_model) or (column is not None and _is_made(catalog, column))


def _is_made(catalog: BaseCatalog, grouping: str) -> bool:
    """Whether a grouping is made of samples, by round 0's model."""
    return not modality_of(catalog).groupings.keys().isdisjoint(grouping.split(CROSS))
