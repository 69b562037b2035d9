"""Subsets that metagradients and filters choose together, held against the rounds by the held-out part of the target.

A filter is right about other things than g: what has a high loss is seldom of use, whatever the target wants. And it is
right more often if the models of all rounds are asked, where the filters of the comparison go by that of round 0 alone:
later ones were trained on what g chose, and all of them from other initial weights on other samples, so that what one
has learnt by heart the others have not. How far to trust a filter cannot be learnt from g, and not be known beforehand;
so, after the rounds, samples are ranked by both, as many as the last round has kept are taken, and one training is done
on them. Each blend adds its filter to those before it: the same one again has twice the weight. The held-out part says
whether a blend is better than the rounds (`tasks.curation.selection`).

All are turned into places in an order before they are added, so that nobody's unit, nor a few great values, counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.curation.count_updates import Published, publish_counts, rounds_acted_on
from tasks.curation.ranking import by_model, ranked
from tasks.curation.rounds import counts_of
from tasks.modality.recipe import Counts, Ids, PoolRecipe, Scores
from tasks.modality.registry import open_recipe
from tasks.scoring.acted_on import acted_on, column
from tasks.tables.published import read


def publish_blend(directory: Path, round: int) -> None:
    """Publish the counts of what the run's g and the blend's filters choose together, as those of a round after the
    last."""
    with open_recipe(directory) as recipe:
        publish_counts(recipe.run.directory, round, [recipe.uids], blended(recipe, round))


def blended(recipe: PoolRecipe, round: int) -> Counts:
    """Counts (n,) of the blend that is trained as ``round``: once each, as many as the last round has, those first by
    the sum of their places in the order of the g that the last step acted on and, for each filter, of the mean of their
    places in its orders by the models of all rounds. On a tie, in the order of the pool."""
    descent = recipe.catalog.descent
    size = int((counts_of(recipe, descent.rounds) > 0).sum())
    total = _places(np.argsort(_g(recipe), kind="stable"))
    for filter in descent.blends[: round - descent.rounds]:
        judges = range(descent.rounds + 1) if by_model(recipe.catalog, filter) else [0]
        total += sum(_places(ranked(recipe, filter, judge)) for judge in judges) / len(judges)
    counts: Counts = np.zeros(len(total), np.int64)
    counts[np.argsort(total, kind="stable")[:size]] = 1
    return counts


def _places(order: Ids) -> Scores:
    """The place (n,), from 0, of every sample in an order (n,) of all."""
    return np.argsort(order).astype(np.float64)


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
