"""What every metric of an evaluation is: what a person calls it, which way is better, and what chance does to it.

One table; a metric that is not in it is one of DataComp's, a share of which more is better. An accuracy is the share of
n samples that are right, so its standard error is that of a share, sqrt(a (1 - a) / n) (Wald). Other metrics (losses,
means over classes, precisions) have none here: it cannot be told from their value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

NOT_FINITE = 1e9
"""The loss of a training that left the range of numbers, nats."""


@dataclass(frozen=True)
class Metric:
    """``spoken``: its name in a sentence. ``of_samples``: it is the share of the n samples that are right.
    ``in_percent``: it is a share, 0 to 1."""

    name: str
    higher_is_better: bool = True
    spoken: str = ""
    of_samples: bool = False
    in_percent: bool = True

    @property
    def words(self) -> str:
        """What a person calls it."""
        return self.spoken or self.name

    @property
    def of_diverged(self) -> float:
        """What stands for it where a training left the range of numbers: nothing is worse."""
        return 0.0 if self.higher_is_better else NOT_FINITE

    def standard_error(self, value: float, n: int) -> float | None:
        """Of ``value`` by the choice of the n samples, in the metric's unit; None where it cannot be told."""
        return share_error(value, n) if self.of_samples else None

    def better(self, one: float, other: float) -> bool:
        """Whether ``one`` is better than ``other``."""
        return one > other if self.higher_is_better else one < other

    def ascending(self, value: float) -> float:
        """A number to sort by, the best first."""
        return -value if self.higher_is_better else value


METRICS = {
    one.name: one
    for one in (
        Metric("loss", higher_is_better=False, in_percent=False),
        Metric("acc1", spoken="accuracy", of_samples=True),
        Metric("acc5", spoken="top-5 accuracy", of_samples=True),
        Metric("accuracy", of_samples=True),
        Metric("exact_match", spoken="exact match", of_samples=True),
    )
}


def metric(name: str) -> Metric:
    """The metric of a name."""
    return METRICS.get(name) or Metric(name)


def accuracy_of(names: Iterable[str]) -> str:
    """The metric among ``names`` that is the share of right answers."""
    return next(name for name in names if metric(name).words == "accuracy")


def diverged(names: Iterable[str]) -> dict[str, float]:
    """What stands for scores called `<split>_<metric>` where the training left the range of numbers."""
    return {name: metric(name.rpartition("_")[2]).of_diverged for name in names}


def share_error(share: float, n: int) -> float:
    """Standard error of a share of n samples."""
    return sqrt(max(0.0, share * (1 - share)) / n)


def percent(share: float | None, digits: int = 1) -> str:
    """A share for the eye, in percent; a dash for None."""
    # + 0.0 after rounding: no "-0 %".
    return "–" if share is None else f"{round(100 * share, digits) + 0.0:.{digits}f} %".replace("-", "−")
