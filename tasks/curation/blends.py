"""Subsets that metagradients and a filter choose together, held against the rounds by the held-out part of the target.

A filter is right about other things than g: what has a high loss is seldom of use, whatever the target wants. And the
model of the last round judges far better than that of round 0, which every filter of the comparison goes by: it was
trained on what g chose. How far to trust it cannot be learnt from g, and not be known beforehand; so, after the rounds,
samples are ranked by both, as many as the last round has kept are taken, and one training is done on them, whose model
judges for the blend after it: the same filter again goes one step further. The held-out part says whether a blend is
better than the rounds (`tasks.curation.selection`).

Both are turned into places in an order before they are added, so that neither's unit, nor a few great values, counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.curation.count_updates import Published, publish_counts, rounds_acted_on
from tasks.curation.ranking import ranked
from tasks.curation.rounds import counts_of
from tasks.modality.recipe import Counts, PoolRecipe, Scores
from tasks.modality.registry import open_recipe
from tasks.scoring.acted_on import acted_on, column
from tasks.tables.published import read


def publish_blend(directory: Path, filter: str, round: int) -> None:
    """Publish the counts of what the run's g and a filter choose together, as those of a round after the last."""
    with open_recipe(directory) as recipe:
        publish_counts(recipe.run.directory, round, [recipe.uids], blended(recipe, filter, round))


def blended(recipe: PoolRecipe, filter: str, round: int) -> Counts:
    """Counts (n,) of the blend that is trained as ``round``: once each, as many as the last round has, those first by
    the sum of their places in two orders, by the g that the last step acted on and by the filter's scores by the model
    of the round before. On a tie, in the order of the pool."""
    size = int((counts_of(recipe, recipe.catalog.descent.rounds) > 0).sum())
    orders = np.argsort(_g(recipe), kind="stable"), ranked(recipe, filter, round - 1)
    total = sum(map(np.argsort, orders), np.zeros(len(recipe), np.int64))  # of an order, argsort gives the places
    counts: Counts = np.zeros(len(total), np.int64)
    counts[np.argsort(total, kind="stable")[:size]] = 1
    return counts


def _g(recipe: PoolRecipe) -> Scores:
    """What the last step acted on (n,)."""
    run, options = recipe.run, recipe.catalog.descent
    last = options.rounds - 1
    if options.acts_on_beliefs:
        found: Scores = read(run.home, run.id, "beliefs", last, ["g_mean"])["g_mean"].to_numpy()
        return found
    rounds = rounds_acted_on(options, last)
    samples = Published.of(run.home, run.id, rounds).side_by_side()
    return column(samples.select(acted_on(samples, rounds, options))).astype(np.float64)
