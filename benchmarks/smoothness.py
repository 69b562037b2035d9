"""Does metasmoothness tell which recipes metagradient steps work on?

`python -m benchmarks.smoothness` takes the recipes of `benchmarks.smoothness_problem`, one knob apart from each other,
and for each and each of three seeds (initialisation, data order, directions)

* measures S along two directions of example weights (h = 0.1) moved from the window's first step on;
* takes the metagradient at counts of one and makes one exchange step: the fifth of the pool with the lowest g gains a
  copy, the fifth with the highest loses its one; trains afresh on the new counts, and does the same with two random
  steps and with one that knows which captions are wrong.

The success of a recipe is the fall of the target loss relative to the random steps, 1 - loss(metagradient) /
loss(random), averaged over the seeds; a metagradient that is not finite is a success of 0, for no step is made. The
figure is Spearman's rank correlation of S and success over the recipes (bar: 0.8; Engstrom et al. 2025, figure 4b).
Beside it, correlations with two other measures of success: the share of the perfect step's fall, and the promise kept
by a step of weights, (loss at z - loss at z - h sign g) / (h |g|_1), which is 1 where the loss is straight. Recipes and
measures were fixed before any success was measured; S alone was looked at to have a range of it.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass
from statistics import fmean

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP: on shared cores, threads must sleep

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._envelope import emit
from benchmarks.smoothness_problem import POOL, RECIPES, Recipe, learner_of, pictures, target_of
from mgd_core.descent import Counts, exchange_step
from mgd_core.determinism import deterministic
from mgd_core.order import generator
from mgd_core.plans import keep_all
from mgd_core.replay import replay, train
from mgd_core.reverse import NonFiniteError
from mgd_core.smoothness import along, direction, reweighted

H, DIRECTIONS, SHARE, RANDOM_STEPS = 0.1, 2, 0.2, 2
STEPS, SEEDS = 128, (0, 1, 2)
QUICK_STEPS, QUICK_SEEDS, QUICK_RECIPES = 64, (0,), (0, 2, 3, 5, 7, 9, 12)
ONES: Counts = np.ones(POOL, np.int64)

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A recipe with one seed. Losses in nats; ``promise`` is NaN-free: 0 where there was no metagradient."""

    recipe: str
    seed: int
    scores: tuple[float, ...]
    finite: bool
    loss: float
    stepped: float
    random: float
    perfect: float
    promise: float

    @property
    def success(self) -> float:
        """Fall of the target loss relative to random steps, as a share of theirs."""
        return 1 - self.stepped / self.random if self.finite else 0.0

    @property
    def share(self) -> float:
        """Of the fall that the perfect step gives, what the metagradient's gives."""
        return (self.random - self.stepped) / (self.random - self.perfect) if self.finite else 0.0


def main() -> None:
    """Print a table and the correlations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer recipes, shorter trainings, one seed")
    quick = parser.parse_args().quick
    recipes = [RECIPES[i] for i in QUICK_RECIPES] if quick else list(RECIPES)
    steps, seeds = (QUICK_STEPS, QUICK_SEEDS) if quick else (STEPS, SEEDS)
    with deterministic(1):
        found = [[measure(recipe, steps, seed) for seed in seeds] for recipe in recipes]
        show(found)
        figures = {
            "rank_correlation": correlation(found, "success"),
            "rank_correlation_share": correlation(found, "share"),
            "rank_correlation_promise": correlation(found, "promise"),
            "rank_correlation_by_seed": [
                correlation([[row[i]] for row in found], "success") for i in range(len(seeds))
            ],
            "recipes": len(recipes),
            "steps": steps,
            "rows": [asdict(one) for row in found for one in row],
        }
        emit("smoothness", figures)


def show(found: list[list[Measured]]) -> None:
    """The table, the smoothest recipe first."""
    names = "".join(f"{name:>8}" for name in ("loss", "random", "step"))
    print(f"{'recipe':<22}{'S':>7}{'over all':>16}{names}{'success':>9}{'share':>8}{'promise':>9}")
    for row in sorted(found, key=_smoothness, reverse=True):
        scores = [s for one in row for s in one.scores]
        spread = f"{min(scores):.3f} .. {max(scores):.3f}"
        losses = "".join(f"{_mean(row, name):>8.3f}" for name in ("loss", "random", "stepped"))
        measures = f"{_mean(row, 'success'):>9.3f}{_mean(row, 'share'):>8.3f}{_mean(row, 'promise'):>9.3f}"
        broken = "" if all(one.finite for one in row) else "  not finite"
        print(f"{row[0].recipe:<22}{_smoothness(row):>7.3f}{spread:>16}{losses}{measures}{broken}")


def correlation(found: list[list[Measured]], measure: str) -> float:
    """Spearman's, of S and a measure of success over the recipes, both averaged over the seeds."""
    ranks = [_ranks([_smoothness(row) for row in found]), _ranks([_mean(row, measure) for row in found])]
    matrix: Vector = np.atleast_2d(np.corrcoef(ranks))
    return float(matrix[0, 1])


def measure(recipe: Recipe, steps: int, seed: int) -> Measured:
    """Smoothness of a recipe, and what steps on it do."""
    learner, state = learner_of(recipe, ONES, steps, seed)
    target, start = target_of(learner), int(recipe.window * steps)

    def trained(shift: torch.Tensor) -> tuple[torch.Tensor, float]:
        theta = train(reweighted(learner, shift, start), state)[0].theta
        return theta, float(target(theta)[0])

    at_z, loss = trained(torch.zeros(POOL))
    scores = []
    for number in range(DIRECTIONS):
        v = H * direction(POOL, seed, number)
        ends = [(at_z, loss), trained(v), trained(2 * v)]
        scores.append(along([theta for theta, _ in ends], [phi for _, phi in ends], H).score)
    draws = [generator(seed, 1 << 20, i).standard_normal(POOL) for i in range(RANDOM_STEPS)]
    random = fmean(after_step(recipe, draw, steps, seed) for draw in draws)
    perfect = after_step(recipe, np.where(pictures("pool", POOL).clean, -1.0, 1.0) + 1e-3 * draws[0], steps, seed)
    try:
        g = replay(learner, state, target, keep_all(start, steps), POOL).example.double()
    except NonFiniteError:
        return Measured(recipe.name, seed, tuple(scores), False, loss, random, random, perfect, 0.0)
    _, lowered = trained(-H * g.sign())
    promise = (loss - lowered) / (H * float(g.abs().sum()))
    stepped = after_step(recipe, g.numpy(), steps, seed)
    return Measured(recipe.name, seed, tuple(scores), True, loss, stepped, random, perfect, promise)


def after_step(recipe: Recipe, g: Vector, steps: int, seed: int) -> float:
    """Target loss, nats, of a training afresh on the counts after one exchange step along ``g``."""
    counts = exchange_step(ONES, g, np.ones(POOL, np.bool_), SHARE).counts
    learner, state = learner_of(recipe, counts, steps, seed)
    return float(target_of(learner)(train(learner, state)[0].theta)[0])


def _smoothness(row: list[Measured]) -> float:
    return fmean(s for one in row for s in one.scores)


def _mean(row: list[Measured], name: str) -> float:
    return fmean(getattr(one, name) for one in row)


def _ranks(values: list[float]) -> Vector:
    """Ranks from 0, ties sharing their mean."""
    x = np.array(values)
    return np.array([(x < v).sum() + 0.5 * ((x == v).sum() - 1) for v in x])


if __name__ == "__main__":
    main()
