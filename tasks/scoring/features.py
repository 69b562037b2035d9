"""What is known of a sample, as the features of a model: float32 rows (m, f), laid out a stretch at a time.

* the embeddings by the run's first model, and of a pair the product of both, entry by entry: its sum is the cosine;
* numbers, each standardised, cut off at +-CUT standard deviations, and its square beside it: losses and cosines by
  each model, and what the pool has of a sample (`tasks.scoring.numbers`). Where the fitted pool lacks some, a column
  says where, and a missing number stands at the mean.

Groups are no features: `descent.groups` enter beside the model's expectation as effects of their own
(`mgd_core.descent.shrinkage`), which weighs large and small ones as they deserve; a mean by group coded as a number
would say the same with one weight for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mgd_core.errors import UserError
from tasks.modality.base import Seen
from tasks.pool.columns import STRETCH

Vector = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Place = slice | npt.NDArray[np.int64]
CUT = 5.0


class FeatureError(UserError, ValueError):
    """A pool lacks what a scorer reads; says what, and what there is."""


@dataclass(frozen=True)
class Number:
    """A number by its name: mean and standard deviation among the fitted samples, and whether some lacked it."""

    name: str
    mean: float
    scale: float
    gaps: bool

    def columns(self, values: Vector) -> list[Vector]:
        """Its features (m,)."""
        missing = ~np.isfinite(values)
        z = np.clip((np.where(missing, self.mean, values) - self.mean) / self.scale, -CUT, CUT)
        return [z, z * z, *([missing.astype(np.float64)] if self.gaps else [])]


@dataclass(frozen=True)
class Layout:
    """Which features there are: dimensions of each embedding, and numbers, those that models see first."""

    dimensions: tuple[int, ...]
    seen: tuple[Number, ...]
    own: tuple[Number, ...]

    def __len__(self) -> int:
        vectors = sum(self.dimensions) + (self.dimensions[0] if len(self.dimensions) == 2 else 0)
        return vectors + sum(2 + one.gaps for one in (*self.seen, *self.own))

    def rows(self, seen: Seen, own: Mapping[str, Vector], at: Place) -> Rows:
        """The features of samples at some places of what is seen and known of them."""
        found = np.empty((len(_of(seen, own)[at]), len(self)), np.float32)
        vectors = [one[at] * np.float32(np.sqrt(d)) for one, d in zip(seen.vectors, self.dimensions, strict=True)]
        parts = [*vectors, *([vectors[0] * vectors[1]] if len(vectors) == 2 else [])]
        start = 0
        for part in parts:
            found[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        for numbers, values in ((self.seen, seen.numbers), (self.own, own)):
            for number in numbers:
                for column in number.columns(values[number.name][at]):
                    found[:, start] = column
                    start += 1
        return found

    def check(self, own: Mapping[str, Vector], pool: str) -> None:
        """See that a pool has the numbers that are read of it; raises FeatureError."""
        lacking = [number.name for number in self.own if number.name not in own]
        if lacking:
            raise FeatureError(
                f"{pool}: the scorer reads {', '.join(lacking)}, which the pool has not; it has {', '.join(own)}. Join "
                "the metadata that has it (the catalog's pool.metadata), or distil a scorer from a pool without it"
            )

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Layout:
        """What was told."""
        numbers = {part: tuple(Number(**one) for one in told[part]) for part in ("seen", "own")}
        return cls(tuple(told["dimensions"]), **numbers)


def layout_of(seen: Seen, own: Mapping[str, Vector]) -> Layout:
    """The features of a pool's n samples; numbers that are alike for all of them are left out."""
    found = [_numbers(values) for values in (seen.numbers, own)]
    return Layout(tuple(one.shape[1] for one in seen.vectors), *found)


def stretches(n: int, size: int = STRETCH // 8) -> Sequence[slice]:
    """Places of n samples, so many at a time that features of 2,000 numbers take 130 MB as float64."""
    return [slice(at, min(at + size, n)) for at in range(0, n, size)]


def _numbers(values: Mapping[str, Vector]) -> tuple[Number, ...]:
    found = []
    for name, column in values.items():
        n, total, squares = 0, 0.0, 0.0
        for at in stretches(len(column), STRETCH):
            there = column[at][np.isfinite(column[at])]
            n, total = n + len(there), total + float(there.sum())
        mean = total / max(n, 1)
        for at in stretches(len(column), STRETCH):
            there = column[at][np.isfinite(column[at])]
            squares += float(((there - mean) ** 2).sum())
        scale = float(np.sqrt(squares / max(n, 1)))
        if scale > 1e-9 * abs(mean):
            found.append(Number(name, mean, scale, n < len(column)))
    return tuple(found)


def _of(seen: Seen, own: Mapping[str, Vector]) -> npt.NDArray[Any]:
    """Anything that has a row a sample."""
    return next(iter((*seen.vectors, *seen.numbers.values(), *own.values())))
