"""Does metasmoothness tell which recipes metagradient steps work on?

`python -m benchmarks.smoothness` takes the recipes of `benchmarks.smoothness.problem`, one knob apart from a rough one,
whose S goes from about 0 to 1, and for each and each of three seeds (initialisation, data order, directions)

* measures S along two directions of example weights (h = 0.1) moved from the window's first step on;
* takes the metagradient g at weights of one and makes one step of gradient descent on the n weights, of the size that
  S was measured at: z - h sqrt(n) g / |g|, a root mean square of h a weight; trains again and notes the target's fall;
* trains again with 16 steps of the same length in random directions (each weight h up or down).

The **success** of a recipe is the mean fall of the target loss by the metagradient step, over sqrt(n) times the root
mean square of what random steps of the same length change, both over all seeds. Where the loss is straight that is the
cosine between g and the true direction of steepest descent, whatever the recipe's learning rate, window or distribution
of g: 1 where the metagradient is all it promises, 0 where its step is no better than one at random, below 0 where it
does harm. (The fall alone would compare how far weights can move a loss at all, which a late window or a low learning
rate lessen without making g any worse.) A metagradient that is not finite is a success of 0, for no step is made.

The figure is Spearman's rank correlation of S and success over the recipes (bar: 0.8; Engstrom et al. 2025, figure 4b).
Beside it, the same with three other measures: `fall`, the share of the target loss that the step takes away; `promise`,
its fall over the predicted h sqrt(n) |g|, the mean over seeds; and `exchange`, the fall relative to random ones after a
step of counts instead (the fifth of the pool with the lowest g gains a copy, the fifth with the highest loses its one),
which is so large a step that it averages noise. Recipes and all measures were fixed, this one as the figure, before any
success was measured on these recipes; S and the accuracy of the plain training alone were looked at.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP: on shared cores, threads must sleep

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._envelope import emit
from benchmarks.smoothness.problem import POOL, RECIPES, Recipe, learner_of, target_of
from mgd_core.analysis.smoothness import along, direction, reweighted
from mgd_core.descent.steps import Counts, exchange_step
from mgd_core.engine.replay import replay, train
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.plans.plan import keep_all
from mgd_core.training.determinism import deterministic
from mgd_core.training.order import generator

H, DIRECTIONS, SHARE = 0.1, 2, 0.2
LENGTH = H * sqrt(POOL)  # of a step
STEPS, SEEDS, RANDOM = 512, (0, 1, 2), 16
QUICK_STEPS, QUICK_SEEDS, QUICK_RANDOM, QUICK_RECIPES = 160, (0,), 3, (0, 4, 6, 8, 11, 14)
STREAM = 1 << 20  # names the generators of random steps
ONES: Counts = np.ones(POOL, np.int64)

Vector = npt.NDArray[np.float64]
Rows = list["Measured"]


@dataclass(frozen=True)
class Measured:
    """A recipe with one seed. Target losses in nats: at weights of one, after the step along g, after each random step;
    after a step of counts along g and at random. ``predicted``: the fall that g promises; 0 without a finite one."""

    recipe: str
    seed: int
    scores: tuple[float, ...]
    loss: float
    stepped: float
    predicted: float
    random: tuple[float, ...]
    exchanged: float
    exchanged_at_random: float

    @property
    def promise(self) -> float:
        """Of the fall that g promises, what came."""
        return (self.loss - self.stepped) / self.predicted if self.predicted else 0.0


def smoothness(rows: Rows) -> float:
    """Mean S over seeds and directions."""
    return fmean(s for row in rows for s in row.scores)


def success(rows: Rows) -> float:
    """Fall by the metagradient step over sqrt(n) times the root mean square by random ones, over all seeds."""
    by_chance = sqrt(fmean((row.loss - loss) ** 2 for row in rows for loss in row.random))
    return fmean(row.loss - row.stepped for row in rows) / (sqrt(POOL) * by_chance)


MEASURES: dict[str, Callable[[Rows], float]] = {
    "success": success,
    "fall": lambda rows: fmean(1 - row.stepped / row.loss for row in rows),
    "promise": lambda rows: fmean(row.promise for row in rows),
    "exchange": lambda rows: fmean(1 - row.exchanged / row.exchanged_at_random for row in rows),
}


def main() -> None:
    """Print a table and the correlations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer recipes and random steps, 160 steps, one seed")
    quick = parser.parse_args().quick
    recipes = [RECIPES[i] for i in QUICK_RECIPES] if quick else list(RECIPES)
    steps, seeds, random = (QUICK_STEPS, QUICK_SEEDS, QUICK_RANDOM) if quick else (STEPS, SEEDS, RANDOM)
    with deterministic(1):
        found = [[measure(recipe, steps, seed, random) for seed in seeds] for recipe in recipes]
    show(found)
    figures = {
        "rank_correlation": correlation(found, success),
        **{f"rank_correlation_{name}": correlation(found, MEASURES[name]) for name in ("fall", "promise", "exchange")},
        "rank_correlation_by_seed": [correlation([[row[i]] for row in found], success) for i in range(len(seeds))],
        "recipes": len(recipes),
        "steps": steps,
        "table": {row[0].recipe: [smoothness(row), *(of(row) for of in MEASURES.values())] for row in found},
        "rows": [asdict(one) for row in found for one in row],
    }
    emit("smoothness", figures)


def show(found: list[Rows]) -> None:
    """The table, the smoothest recipe first."""
    print(f"{'recipe':<26}{'S':>7}{'over all':>17}{'loss':>8}" + "".join(f"{name:>10}" for name in MEASURES))
    for rows in sorted(found, key=smoothness, reverse=True):
        scores = [s for row in rows for s in row.scores]
        spread = f"{min(scores):.3f} .. {max(scores):.3f}"
        measures = "".join(f"{of(rows):>10.3f}" for of in MEASURES.values())
        broken = "" if all(row.predicted for row in rows) else "  not finite"
        loss = fmean(row.loss for row in rows)
        print(f"{rows[0].recipe:<26}{smoothness(rows):>7.3f}{spread:>17}{loss:>8.3f}{measures}{broken}")


def correlation(found: list[Rows], measure: Callable[[Rows], float]) -> float:
    """Spearman's, of S and a measure over the recipes."""
    ranks = [_ranks([of(rows) for rows in found]) for of in (smoothness, measure)]
    matrix: Vector = np.atleast_2d(np.corrcoef(ranks))
    return float(matrix[0, 1])


def measure(recipe: Recipe, steps: int, seed: int, random: int) -> Measured:
    """Smoothness of a recipe, and what steps on it do; ``random``: so many random steps."""
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
    draws = [generator(seed, STREAM, i).standard_normal(POOL) for i in range(random)]
    by_chance = tuple(trained(torch.from_numpy(H * np.sign(draw)))[1] for draw in draws)
    exchanged_at_random = fmean(exchanged(recipe, draw, steps, seed) for draw in draws[:2])
    try:
        g = replay(learner, state, target, keep_all(start, steps), POOL).example.double()
    except NonFiniteError:
        same = loss, 0.0, by_chance, exchanged_at_random, exchanged_at_random
        return Measured(recipe.name, seed, tuple(scores), loss, *same)
    stepped = trained(-LENGTH * g / g.norm())[1]
    by_counts = exchanged(recipe, g.numpy(), steps, seed)
    predicted = LENGTH * float(g.norm())
    return Measured(
        recipe.name, seed, tuple(scores), loss, stepped, predicted, by_chance, by_counts, exchanged_at_random
    )


def exchanged(recipe: Recipe, g: Vector, steps: int, seed: int) -> float:
    """Target loss, nats, of a training afresh on the counts after one exchange step along ``g``."""
    counts = exchange_step(ONES, g, np.ones(POOL, np.bool_), SHARE).counts
    learner, state = learner_of(recipe, counts, steps, seed)
    return float(target_of(learner)(train(learner, state)[0].theta)[0])


def _ranks(values: list[float]) -> Vector:
    """Ranks from 0, ties sharing their mean."""
    x = np.array(values)
    return np.array([(x < v).sum() + 0.5 * ((x == v).sum() - 1) for v in x])


if __name__ == "__main__":
    main()
