"""Denoised metagradients: what a sample's g is, given what is measured of it and of the groups it belongs to.

One sample's g is mostly noise; the mean over its source, its domain, or its cluster is not. Measured g of n samples, y
(n,), is read as

    y_i = mu + sum_k u_k[group_k(i)] + w_i + e_i,    u_k ~ N(0, s_k^2), w ~ N(0, s_w^2), e_i ~ N(0, noise_i),

a mean, an effect of each group of each grouping (crossed random effects: groupings may cut across each other), an own
effect, and noise of known size; the result is the expectation of y - e given y (best linear unbiased prediction;
Robinson 1991, "That BLUP is a good thing"), with every s^2 estimated from the same y (empirical Bayes). A sample
without a measurement of its own (noise infinite) gets what its groups say.

Effects are found by sweeps over the groupings, each given the others, and variances with them (mean-field variational
expectation maximisation): O(n) a grouping and sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

SWEEPS = 200
STEADY = 1e-6
"""Sweeps end once no variance moves by more than this share of the variance of y."""


class Denoised(NamedTuple):
    """``values`` (n,): y without its noise, as far as can be told. Of the variance of y: the shares that groups of each
    grouping, what is a sample's own, and noise have."""

    values: Vector
    of_groups: tuple[float, ...]
    own: float
    noise: float


def denoised(y: Vector, noise: Vector, groupings: Sequence[Codes]) -> Denoised:
    """``y`` (n,) with ``noise`` (n,), the variance of each one's error (inf: not measured, y is not looked at), by
    groupings (n,) of codes from 0."""
    known = np.isfinite(noise)
    measured, error = y[known], noise[known]
    total = float(measured.var()) if len(measured) else 0.0
    if total == 0.0:
        mean = float(measured.mean()) if len(measured) else 0.0
        return Denoised(np.full(len(y), mean), (0.0,) * len(groupings), 0.0, 0.0)
    inside = [codes[known] for codes in groupings]
    sizes = [int(codes.max(initial=-1)) + 1 for codes in groupings]
    mean = float(measured.mean())
    effects = [np.zeros(size) for size in sizes]
    between = [total / (len(groupings) + 1)] * len(groupings)
    own = max(0.0, total - float(error.mean()))
    for _ in range(SWEEPS):
        before = [*between, own]
        weight = 1 / np.maximum(own + error, STEADY * total)
        rest = measured - mean - sum(effect[codes] for effect, codes in zip(effects, inside, strict=True))
        for k, codes in enumerate(inside):
            rest += effects[k][codes]
            precision = np.bincount(codes, weight, sizes[k])
            spread = 1 / (precision + 1 / max(between[k], STEADY**2 * total))
            effects[k] = spread * np.bincount(codes, weight * rest, sizes[k])
            there = precision > 0
            between[k] = float(np.mean(effects[k][there] ** 2 + spread[there]))
            rest -= effects[k][codes]
        mean += float(np.average(rest, weights=weight))
        own = max(0.0, float(np.mean((rest - np.average(rest, weights=weight)) ** 2 - error)))
        if max(abs(now - then) for now, then in zip([*between, own], before, strict=True)) <= STEADY * total:
            break
    values = mean + sum((effect[codes] for effect, codes in zip(effects, groupings, strict=True)), np.zeros(len(y)))
    values[known] += own / np.maximum(own + error, STEADY * total) * (measured - values[known])
    shares = tuple(one / total for one in between)
    return Denoised(values, shares, own / total, float(error.mean()) / total)
