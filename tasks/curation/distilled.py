"""Distilled metagradients: what a run measured of its pool, as a scorer for pools that nobody probes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.curation.count_updates import Published
from tasks.files.plurals import counted
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import modality_of, open_recipe
from tasks.scoring.acted_on import Measured, measured
from tasks.scoring.fitting import fit
from tasks.scoring.known import known_of, states_of
from tasks.scoring.scorers import Scorer, ScorerError
from tasks.tables.published import files

Vector = npt.NDArray[np.float64]


def distil(directory: Path, out: Path, cheap: bool = False) -> str:
    """Fit a scorer to all that a run probed, in all rounds alike, and write it to ``out``; returns sentences on how
    well it does on samples that it has not seen. ``cheap``: it reads the pool's own numbers only.

    Raises:
        ScorerError: nothing was probed yet, or something else is at ``out``.
        Unusable: its models cannot be taken out of the run.
    """
    with open_recipe(directory) as recipe:
        run = recipe.run
        rounds = list(files(run.home, run.id, "metagradients"))
        if not rounds:
            raise ScorerError(f"run {run.id} has probed nothing yet; finish a round of it with `mgd curate`")
        sight = None if cheap else modality_of(recipe.catalog).sight(recipe, states_of(run))
        whole = _measured(recipe, rounds)
        made = fit(known_of(recipe, seen=not cheap), recipe.uids, whole.mean, whole.rounds)
        probed = whole.rounds > 0
        told: dict[str, Any] = {
            "run": run.id,
            "pool": recipe.pool.samples_digest,
            "rounds": len(rounds),
            "samples": int(probed.sum()),
            "rank_correlation": rank_correlation(made.expected[probed], whole.mean[probed]),
            "ceiling": _ceiling(recipe, rounds, whole),
        }
        Scorer(recipe.catalog.kind, made.layout, made.model, sight, told).write(out)
    return format_figures(told)


def format_figures(told: dict[str, Any]) -> str:
    """Sentences on how good a scorer is."""
    ceiling = told["ceiling"]
    most = (
        "not known: with one round and one probe step nothing tells the noise of g"
        if ceiling is None
        else f"by what halves of the rounds agree on, g itself would allow {ceiling:.2f}"
    )
    return (
        f"distilled from {counted(told['samples'], 'sample')} of {told['run']}, {counted(told['rounds'], 'round')}. "
        f"Rank correlation with g of samples that it had not seen: {told['rank_correlation']:.2f} ({most})"
    )


def rank_correlation(x: Vector, y: Vector) -> float:
    """Spearman's, of x (n,) and y (n,), ties by their mean rank; 0 where one of them is constant."""
    one, two = (_ranks(values) - (len(values) - 1) / 2 for values in (x, y))
    size = float(np.sqrt((one @ one) * (two @ two)))
    return float(one @ two) / size if size else 0.0


def _ranks(values: Vector) -> Vector:
    _, place, often = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(often) - 1
    ranks: Vector = (last - (often - 1) / 2)[place]
    return ranks


def _ceiling(recipe: PoolRecipe, rounds: list[int], whole: Measured) -> float | None:
    """The rank correlation with the measured g that what is lasting of g would have: the root of its reliability,
    from two halves of the rounds (Spearman-Brown), or in a single round from its measured noise."""
    if len(rounds) > 1:
        halves = [_measured(recipe, rounds[first::2]) for first in range(2)]
        both = (halves[0].rounds > 0) & (halves[1].rounds > 0)
        between = rank_correlation(*(half.mean[both] for half in halves)) if both.any() else 0.0
        return float(np.sqrt(max(0.0, 2 * between / (1 + between))))
    if not whole.is_known:
        return None
    known = whole.rounds > 0
    return float(np.sqrt(max(0.0, 1 - whole.noise[known].mean() / max(whole.mean[known].var(), 1e-300))))


def _measured(recipe: PoolRecipe, rounds: list[int]) -> Measured:
    """The mean of g over rounds, all alike."""
    samples = Published.of(recipe.run.home, recipe.run.id, rounds).side_by_side()
    return measured(samples, rounds, recipe.catalog.descent.model_copy(update={"momentum": 1.0}))
