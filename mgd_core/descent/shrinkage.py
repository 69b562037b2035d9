"""Denoised metagradients: what a sample's g is, given what is measured of it, of the groups it belongs to, and of what
is known of it besides.

One sample's g is mostly noise; the mean over its source, its domain, or its cluster is not, nor is what a model fitted
to other samples expects of it. Measured g of n samples, y (n,), is read as

    y_i = mu + beta x_i + sum_k u_k[group_k(i)] + w_i + e_i,
    u_k ~ N(0, s_k^2), w ~ N(0, s_w^2), e_i ~ N(0, noise_i),

a mean, a multiple of an expectation x (`expected`, if there is one; it must not have seen y_i, or its noise comes back
with it), an effect of each group of each grouping (crossed random effects: groupings may cut across each other), an own
effect, and noise of known size. The result is the expectation of y - e given y (best linear unbiased prediction;
Robinson 1991, "That BLUP is a good thing"), with beta by generalised least squares and every s^2 estimated from the
same y (empirical Bayes): s_w^2 is what is left of y beyond expectation, groups and noise, so an expectation that says
much leaves little for a sample's own, and one that says nothing gets beta = 0. A sample without a measurement of its
own (noise infinite) gets what its groups and its expectation say.

Effects are found by sweeps over the groupings, each given the others, and variances with them (mean-field variational
expectation maximisation): O(n) a grouping and sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Vector = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

SWEEPS = 200
STEADY = 1e-6
"""Sweeps end once no variance moves by more than this share of the variance of y."""


class Denoised(NamedTuple):
    """``values`` (n,): y without its noise, as far as can be told; ``errors`` (n,): the standard deviation that is left
    of it, variances and beta taken for known (with several groupings nearly so, since each is given the others).
    ``slope``: beta. Of the variance of y: the shares that ``expected``, groups of each grouping, what is a
    sample's own, and noise have."""

    values: Vector
    errors: Vector
    slope: float
    of_expected: float
    of_groups: tuple[float, ...]
    own: float
    noise: float

    @property
    def helps(self) -> Vector:
        """Probability of each to be below 0 (n,), by a normal distribution; of one that is known to be 0, a half."""
        known = np.where(self.values == 0, 0.0, np.copysign(np.inf, -self.values))
        scores = np.divide(-self.values, self.errors, out=known, where=self.errors > 0)
        return torch.special.ndtr(torch.from_numpy(scores)).numpy()


def denoised(
    y: Vector, noise: Vector, groupings: Sequence[Codes], expected: Vector | None = None, whole: bool = False
) -> Denoised:
    """``y`` (n,) with ``noise`` (n,), the variance of each one's error (inf: not measured, y is not looked at), by
    groupings (n,) of codes from 0, and by what is ``expected`` (n,) of each, in any unit. ``whole``: by these alone,
    as if no sample had a measurement of its own."""
    known = np.isfinite(noise)
    measured, error = y[known], noise[known]
    total = float(measured.var()) if len(measured) else 0.0
    if total == 0.0:
        mean = float(measured.mean()) if len(measured) else 0.0
        return Denoised(np.full(len(y), mean), np.zeros(len(y)), 0.0, 0.0, (0.0,) * len(groupings), 0.0, 0.0)
    inside = [codes[known] for codes in groupings]
    sizes = [int(codes.max(initial=-1)) + 1 for codes in groupings]
    line = np.zeros(len(measured)) if expected is None else expected[known]
    mean, slope = _line(measured, line, np.ones(len(measured)))
    effects, spreads = [np.zeros(size) for size in sizes], [np.zeros(size) for size in sizes]
    between = [total / (len(groupings) + 1)] * len(groupings)
    own = max(0.0, total - float(error.mean()))
    for _ in range(SWEEPS):
        before = [*between, own, slope**2 * float(line.var())]
        weight = 1 / np.maximum(own + error, STEADY * total)
        rest = measured - mean - slope * line
        rest -= sum(effect[codes] for effect, codes in zip(effects, inside, strict=True))
        for k, codes in enumerate(inside):
            rest += effects[k][codes]
            precision = np.bincount(codes, weight, sizes[k])
            spreads[k] = 1 / (precision + 1 / max(between[k], STEADY**2 * total))
            effects[k] = spreads[k] * np.bincount(codes, weight * rest, sizes[k])
            there = precision > 0
            between[k] = float(np.mean(effects[k][there] ** 2 + spreads[k][there]))
            rest -= effects[k][codes]
        level, incline = _line(rest, line, weight)
        mean, slope = mean + level, slope + incline
        own = max(0.0, float(np.mean((rest - level - incline * line) ** 2 - error)))
        now = [*between, own, slope**2 * float(line.var())]
        if max(abs(one - then) for one, then in zip(now, before, strict=True)) <= STEADY * total:
            break
    values = np.full(len(y), mean) if expected is None else mean + slope * expected
    unsure = np.zeros(len(y))
    for effect, spread, codes in zip(effects, spreads, groupings, strict=True):
        values += effect[codes]
        unsure += spread[codes]
    trust = np.zeros(len(y))
    if not whole:
        trust[known] = own / np.maximum(own + error, STEADY * total)
    values[known] += trust[known] * (measured - values[known])
    # As far as a sample's own g is not trusted, what is not known of its groups and of itself is left.
    errors = np.sqrt((1 - trust) ** 2 * unsure + (1 - trust) * own)
    shares = [one / total for one in (slope**2 * float(line.var()), *between, own, float(error.mean()))]
    return Denoised(values, errors, slope, shares[0], tuple(shares[1:-2]), *shares[-2:])


def _line(y: Vector, x: Vector, weight: Vector) -> tuple[float, float]:
    """Intercept and slope of y (n,) on x by weighted least squares; a slope of 0 where x says nothing."""
    centre, level = float(np.average(x, weights=weight)), float(np.average(y, weights=weight))
    apart = x - centre
    size = float(weight @ apart**2)
    slope = float((weight * apart) @ (y - level)) / size if size > 0 else 0.0
    return level - slope * centre, slope
