"""Metaparameters: the numbers z that a training reads, by which its target is differentiated.

A kind of metaparameter is four short answers, and no gradient machinery of its own: which learner reads z
(:meth:`Metaparameter.placed`), what shape d phi / dz has and what of a reverse step goes into it (:meth:`zeros`,
:meth:`collect`), and which z are allowed (:meth:`projected`). One reverse sweep serves any number of them
(``mgd_core.engine.replay.replay(metaparameters=...)``), since a reverse step gives the cotangents of all that the step
read: example weights, learning rate, weight decay, and the columns of the rows that some kind names in ``inputs``
(Engstrom et al. 2025, arXiv 2503.13751, sections 3 and 5).

The weights of the paper's data selection, which enter at one step k for the whole pool, have no sum over steps: there
``replay`` hands out gamma_k, and mgd_core.engine.probe scores candidates with it.

Cost: nothing for weights and rates; for inputs, the reverse pass goes on from the first layer to the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mgd_core.engine.reverse import ReverseStep
from mgd_core.training.learner import Batch, Learner


class Metaparameter(ABC):
    """One kind: ``name`` is its key in :attr:`Metagradient.sums`, ``inputs`` the columns of the rows that it is in."""

    name: str
    inputs: Sequence[int] = ()

    @abstractmethod
    def placed(self, learner: Learner, z: Tensor) -> Learner:
        """The learner whose steps read ``z``."""

    @abstractmethod
    def zeros(self, phi: Tensor, learner: Learner) -> Tensor:
        """An empty d phi / dz: the shape of z, after that of ``phi``, on its device and in its precision."""

    @abstractmethod
    def collect(self, total: Tensor, step: ReverseStep, t: int, batch: Batch) -> None:
        """Add to ``total``, in place, what the reversed step ``t`` read of z."""

    def projected(self, z: Tensor) -> Tensor:
        """The nearest z that is allowed: none below 0."""
        return z.clamp(min=0)


@dataclass(frozen=True)
class ExampleWeights(Metaparameter):
    """A weight (n,) for each of ``examples``, at every visit; 1 is the training as it is."""

    examples: int
    name: str = "example"

    def placed(self, learner: Learner, z: Tensor) -> Learner:
        """See :class:`Metaparameter`; z - 1 is added to the weights of the batch."""

        def batches(t: int) -> Batch:
            batch = learner.batches(t)
            return batch._replace(weights=batch.weights + (z - 1).to(batch.weights)[batch.ids])

        return replace(learner, batches=batches)

    def zeros(self, phi: Tensor, learner: Learner) -> Tensor:
        """(n,)."""
        return phi.new_zeros(*phi.shape, self.examples)

    def collect(self, total: Tensor, step: ReverseStep, t: int, batch: Batch) -> None:
        """Sum over visits."""
        total.index_add_(-1, batch.ids, step.weights)


@dataclass(frozen=True)
class LearningRates(Metaparameter):
    """The learning rate of every step (T,); with ``basis`` (T, m), those of m control points: rates = basis @ z."""

    basis: Tensor | None = None
    name: str = "learning_rate"

    def placed(self, learner: Learner, z: Tensor) -> Learner:
        return replace(learner, learning_rates=_spread(z, self.basis, learner.steps))

    def zeros(self, phi: Tensor, learner: Learner) -> Tensor:
        """(T,) or (m,)."""
        return phi.new_zeros(*phi.shape, _count(self.basis, learner.steps))

    def collect(self, total: Tensor, step: ReverseStep, t: int, batch: Batch) -> None:
        """One step's own."""
        _collect_at(total, step.lr, t, self.basis)


@dataclass(frozen=True)
class WeightDecays(LearningRates):
    """The weight decay of every step (T,), or of m control points, as :class:`LearningRates`."""

    name: str = "weight_decay"

    def placed(self, learner: Learner, z: Tensor) -> Learner:
        return replace(learner, weight_decays=_spread(z, self.basis, learner.steps))

    def collect(self, total: Tensor, step: ReverseStep, t: int, batch: Batch) -> None:
        """One step's own."""
        if step.weight_decay is None:
            raise ValueError(
                "this optimizer's vjp does not give the cotangent of the weight decay: see UpdateCotangents"
            )
        _collect_at(total, step.weight_decay, t, self.basis)


@dataclass(frozen=True)
class Inputs(Metaparameter):
    """What some examples show: column ``column`` of the rows, for the examples ``ids`` (m,) of a pool of ``examples``.

    z is (m, *shape), the column's rows. Pixels lie in ``[low, high]``, either may be None; with ``simplex`` the
    rows are probabilities of classes.
    """

    column: int
    ids: Tensor
    examples: int
    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    simplex: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """One for each column."""
        return f"inputs.{self.column}"

    @property
    def inputs(self) -> Sequence[int]:  # type: ignore[override]
        """The column."""
        return (self.column,)

    @cached_property
    def positions(self) -> Tensor:
        """Where each example of the pool lies in z (examples,), -1 for those that do not."""
        found = torch.full((self.examples,), -1, dtype=torch.int64, device=self.ids.device)
        found[self.ids] = torch.arange(len(self.ids), device=self.ids.device)
        return found

    def _at(self, batch: Batch) -> Tensor:
        """Where a batch's examples lie in z; ``ids`` may be on another device than the batches."""
        return self.positions.to(batch.ids.device)[batch.ids]

    def placed(self, learner: Learner, z: Tensor) -> Learner:
        """See :class:`Metaparameter`; the column becomes of z's precision, with the other examples as they are."""
        if self.simplex:
            check_simplex(z)

        def batches(t: int) -> Batch:
            batch = learner.batches(t)
            at = self._at(batch)
            column = batch.rows[self.column].to(z.dtype)
            own = (at >= 0).view(-1, *(1,) * (z.ndim - 1))
            shown = torch.where(own, z[at.clamp(min=0)], column)
            return batch._replace(rows=(*batch.rows[: self.column], shown, *batch.rows[self.column + 1 :]))

        return replace(learner, batches=batches)

    def zeros(self, phi: Tensor, learner: Learner) -> Tensor:
        """(m, ...)."""
        return phi.new_zeros(*phi.shape, len(self.ids), *self.shape)

    def collect(self, total: Tensor, step: ReverseStep, t: int, batch: Batch) -> None:
        """Sum over visits of the examples that z shows."""
        at = self._at(batch)
        own = (at >= 0).nonzero().squeeze(1)
        axis = total.ndim - len(self.shape) - 1
        total.index_add_(axis, at[own], step.inputs[self.column].index_select(axis, own))

    def projected(self, z: Tensor) -> Tensor:
        """Nearest pixels in range, or nearest probabilities."""
        if self.simplex:
            return onto_simplex(z)
        return z if self.low is None and self.high is None else z.clamp(self.low, self.high)


def control_points(steps: int, points: int) -> Tensor:
    """Basis (steps, points), float64, of linear interpolation between control points at even distances.

    Raises:
        ValueError: more control points than steps, or fewer than two of them.
    """
    if not 2 <= points <= steps:
        raise ValueError(
            f"{points} control points for a training of {steps} steps: between 2 and {steps} can be told apart. "
            "Take fewer, or leave them out to move the rate of each step."
        )
    at = torch.arange(steps, dtype=torch.float64)[:, None] * ((points - 1) / (steps - 1))
    return (1 - (at - torch.arange(points)).abs()).clamp(min=0)


def onto_simplex(y: Tensor) -> Tensor:
    """Nearest probabilities to each row (..., classes), in Euclidean distance (Duchi et al. 2008, figure 1)."""
    falling = y.sort(-1, descending=True).values
    excess = (falling.cumsum(-1) - 1) / torch.arange(1, y.shape[-1] + 1, device=y.device)
    last = (falling > excess).sum(-1, keepdim=True) - 1
    return (y - excess.gather(-1, last)).clamp(min=0)


def check_simplex(y: Tensor) -> None:
    """See that every row (..., classes) is a probability distribution.

    Raises:
        ValueError: names the first row that is not, with its least element and sum.
    """
    tolerance = 1e-4  # sums of float32
    bad = (y.amin(-1) < -tolerance) | ((y.sum(-1) - 1).abs() > tolerance) | ~torch.isfinite(y.sum(-1))
    if bad.any():
        first = int(bad.flatten().nonzero()[0])
        row = y.reshape(-1, y.shape[-1])[first]
        raise ValueError(
            f"{int(bad.sum())} soft labels lie outside the simplex, first row {first}: its least element is "
            f"{row.min():.3g} and its sum {row.sum():.6g}. Probabilities are 0 or more and sum to 1; onto_simplex "
            "gives the nearest."
        )


def _spread(z: Tensor, basis: Tensor | None, steps: int) -> Tensor:
    count = _count(basis, steps)
    if z.shape != (count,):
        what = "steps" if basis is None else "control points"
        raise ValueError(f"a schedule of {count} {what} needs z of shape ({count},), got {tuple(z.shape)}")
    return z if basis is None else basis @ z.to(basis)


def _count(basis: Tensor | None, steps: int) -> int:
    if basis is not None and len(basis) != steps:
        raise ValueError(f"the basis of the control points is for {len(basis)} steps, the training has {steps}")
    return steps if basis is None else basis.shape[1]


def _collect_at(total: Tensor, found: Tensor, t: int, basis: Tensor | None) -> None:
    if basis is None:
        total[..., t] = found
    else:
        total += found[..., None] * basis[t].to(total)
