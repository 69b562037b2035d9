"""A learner over ranks, made of one for a single process: its rows spread, its flat vectors cut into slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from mgd_core.ranks.ranks import Ranks, Replicated
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam, Bounds, OptimizerError, Sgd, State


@dataclass(frozen=True)
class OwnBatches:
    """The rows of each batch that fall to a rank, where all are at hand."""

    whole: Callable[[int], Batch]
    ranks: Ranks

    def __call__(self, t: int) -> Batch:
        """This rank's rows of the batch of step ``t``."""
        rows, ids, weights = self.whole(t)
        own = self.ranks.share(len(ids))
        return Batch(tuple(x[own] for x in rows), ids[own], weights[own])

    def expect(self, steps: Iterable[int]) -> None:
        """See :meth:`mgd_core.training.learner.Learner.expect`."""
        expect = getattr(self.whole, "expect", None)
        if expect is not None:
            expect(steps)


def spread(learner: Learner, initial: State, ranks: Ranks, own_batches: bool = False) -> tuple[Learner, State]:
    """``learner`` and its first state over ``ranks``, all of which call this with the same; themselves for one.

    ``own_batches``: its batches are this rank's rows already (``ranks.share`` says which those are).

    Raises:
        OptimizerError: an optimizer that is not elementwise, or not known to be.
    """
    if ranks.count == 1:
        return learner, initial
    if not isinstance(learner.optimizer, Adam | Sgd):
        raise OptimizerError(
            f"{type(learner.optimizer).__name__} cannot be spread over {ranks.count} ranks: each steps its slice of "
            "the parameters alone, so the step has to be elementwise. Take Adam or Sgd, or one process."
        )

    def cut(x: Tensor) -> Tensor:
        return ranks.cut(Replicated(x))

    mask, bounds = learner.optimizer.decay_mask, learner.optimizer.bounds
    optimizer = replace(
        learner.optimizer,
        ranks=ranks,
        decay_mask=None if mask is None else cut(mask),
        bounds=None if bounds is None else _own_bounds(bounds, ranks.part(learner.layout.length)),
    )
    batches = learner.batches if own_batches else OwnBatches(learner.batches, ranks)
    state = State(cut(initial.theta), tuple(cut(x) for x in initial.moments))
    return replace(learner, optimizer=optimizer, batches=batches, ranks=ranks), state


def _own_bounds(bounds: Bounds, part: slice) -> Bounds:
    """Those of the bounds that are of parameters in ``part``, by their places in it."""
    places = bounds.places[(bounds.places >= part.start) & (bounds.places < part.stop)]
    return bounds._replace(places=places - part.start)
