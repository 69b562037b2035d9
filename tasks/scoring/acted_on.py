"""What moves a sample: the metagradients of the rounds so far, summed, scaled, or denoised by what is known of it.

Lazy columns over the tables of the rounds side by side (`count_updates.Published`): `g0`, `g_error0`, `probed0`, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from mgd_core.descent.shrinkage import Codes, Denoised, Vector, denoised
from mgd_core.descent.steps import OUTLIER, SCALE_FLOOR, TINY, mean_in_blocks
from tasks.catalog.recipe_options import DescentOptions
from tasks.files.progress import say


def acted_on(samples: pl.LazyFrame, rounds: list[int], options: DescentOptions) -> pl.Expr:
    """What moves a sample, by the name of g: the sum over rounds, earlier ones discounted by `momentum`.

    scale = "sample" divides it by the root of the sum of squares of the same terms, AdaGrad's scale (Duchi et al. 2011)
    for each sample: a few samples have g of any sign and great size, and would otherwise be moved before those whose g
    is small and steady. For a single round it leaves the order as it is.
    """
    weighted = [options.momentum ** (rounds[-1] - r) * _scaled(r, options) for r in rounds]
    total = reduce(add, weighted).alias("g")  # one after the other, as nothing says of polars' own sum
    if options.scale != "sample":
        return total
    squares = reduce(add, [term * term for term in weighted])
    floor = SCALE_FLOOR * np.sqrt(mean_in_blocks(column(samples.select(squares))))
    return total / (squares.sqrt() + floor + TINY)


class Measured(NamedTuple):
    """The mean of g over rounds (n,), earlier ones discounted by `momentum`; the variance of its error (n,), inf where
    it was never probed; how many rounds' worth it is (n,); and whether the error was measured at all."""

    mean: Vector
    noise: Vector
    rounds: Vector
    is_known: bool


def measured(samples: pl.LazyFrame, rounds: list[int], options: DescentOptions) -> Measured:
    """The mean over rounds and its noise.

    The noise of a round's g is what the rounds of a sample differ by, or by what its probe steps do where that is more;
    it is taken as one number, since a few rounds tell little of a single sample's. Where neither is known, nothing of a
    sample's g is taken for its own: its groups, and what is expected of it, speak for it.
    """
    weights = [options.momentum ** (rounds[-1] - r) for r in rounds]
    probed = [pl.col(f"probed{r}") for r in rounds]
    scaled = [pl.when(one).then(_scaled(r, options)).otherwise(0.0) for r, one in zip(rounds, probed, strict=True)]
    errors = [_scaled(r, options, f"g_error{r}").fill_null(0.0) for r in rounds]

    def total(terms: Sequence[pl.Expr], name: str) -> pl.Expr:
        return reduce(add, terms).cast(pl.Float64).alias(name)

    found = samples.select(
        total([w * one for w, one in zip(weights, probed, strict=True)], "weight"),
        total([w * w * one for w, one in zip(weights, probed, strict=True)], "squared"),
        total([w * one for w, one in zip(weights, scaled, strict=True)], "sum"),
        total(scaled, "plain"),
        total([one * one for one in scaled], "squares"),
        total([1 * one for one in probed], "times"),
        total([one * one for one in errors], "errors"),
        total([pl.col(f"g_error{r}").is_not_null() * 1 for r in rounds], "told"),
    ).collect(engine="streaming")
    columns = {name: found[name].to_numpy() for name in found.columns}
    weight, times = columns["weight"], columns["times"]
    again, told = times > 1, float(columns["told"].sum())
    spread = (columns["squares"] - columns["plain"] ** 2 / np.maximum(times, 1))[again].sum()
    between = float(spread / (times[again] - 1).sum()) if again.any() else 0.0
    within = float(columns["errors"].sum()) / told if told else 0.0
    known = weight > 0
    mean = np.divide(columns["sum"], weight, out=np.zeros(len(weight)), where=known)
    size = max(between, within)
    error = size or float(mean[known].var())
    rounds_worth = np.divide(weight**2, columns["squared"], out=np.zeros(len(weight)), where=known)
    noise = np.full(len(weight), np.inf)
    noise[known] = error * columns["squared"][known] / weight[known] ** 2
    return Measured(mean, noise, rounds_worth, size > 0)


def believed(
    found: Measured, groups: Sequence[Codes], names: Sequence[str], expected: Vector | None, whole: bool = False
) -> Denoised:
    """What g is taken for, by what is measured of it, its ``groups`` of these ``names``, and what is ``expected``;
    ``whole``: by the last two alone.

    Where no error of g was measured, a sample's g is known no better than it varies.
    """
    made = denoised(found.mean, found.noise, groups, expected, whole)
    shares = [f"{name} {share:.3f}" for name, share in zip(names, made.of_groups, strict=True)]
    shares += [f"expected {made.of_expected:.3f} (x {made.slope:.2f})"] if expected is not None else []
    say(f"variance of g: {', '.join([*shares, f'of its own {made.own:.3f}', f'noise {made.noise:.3f}'])}")
    if found.is_known:
        return made
    known = np.isfinite(found.noise)
    own = float((found.mean - made.values)[known].var()) if known.any() else 0.0
    return made._replace(errors=np.sqrt(made.errors**2 + own))


def _scaled(round: int, options: DescentOptions, what: str | None = None) -> pl.Expr:
    """A round's g, or ``what`` is in its unit; by `scale` in median sizes of the samples with the same count, cut off
    at +-`OUTLIER`.

    A sample that the model never saw has g ten times as large as one it saw twice, most of them positive: anything new
    disturbs a fitted model. Without this scale the sum over rounds is made of what was left out, and keeps it out.
    """
    g, probed = pl.col(f"g{round}"), pl.col(f"probed{round}")
    asked = g if what is None else pl.col(what)
    if options.scale != "count":
        return asked
    sizes = pl.when(probed).then(g.abs())
    # Not polars' median, whose last bit is another than numpy's where two are in the middle.
    median = (sizes.quantile(0.5, "lower") + sizes.quantile(0.5, "higher")) / 2
    scaled = (asked / (median.over(f"count{round}") + TINY)).clip(-OUTLIER, OUTLIER)
    return pl.when(probed).then(scaled).otherwise(0.0)


def column(rows: pl.LazyFrame) -> npt.NDArray[Any]:
    """The first column of a query, read in stretches."""
    return rows.collect(engine="streaming").to_series().to_numpy()
