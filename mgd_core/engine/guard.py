"""The determinism guard: a replayed state must be the first one bit for bit, or the metagradient is not exact.

What is guarded. A traversal uses a state in three ways: it keeps it, differentiates a step at it, or goes on from it to
one of those. The guard takes a fingerprint of every state that the first sweep passes and a replay will make again, and
compares where a replay ends: every state that is kept or differentiated after a replay is there. A state on the way of
a replay is not compared by itself; had it differed, the end would too. States that no one makes again (all of them,
under ``keep_all``) cost nothing.

On a mismatch the replay is done once more, step by step, to say which step and parameter it is and how much they
differ.

Over ranks each has the fingerprints of its slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.engine.fingerprints import Fingerprint, fingerprint
from mgd_core.errors import UserError
from mgd_core.ranks.ranks import ALONE, Ranks
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import State

CAUSES = (
    "Likely causes: a change of the number of threads, an operation without a deterministic kernel, data or "
    "augmentation that depend on process state, or a batch that was altered in place."
)


class NondeterminismError(UserError, RuntimeError):
    """The same step gave other bits."""


def check_step(learner: Learner, state: State, t: int, batch: Batch | None = None) -> None:
    """Run step ``t`` twice from ``state``, the first time on ``batch`` if that is at hand; costs two steps.

    Raises:
        NondeterminismError: the results differ in a bit; names the parameter and the size of the difference.
    """
    (first, _), (second, _) = learner.step(state, t, batch), learner.step(state, t)
    if fingerprint(first) != fingerprint(second):
        raise NondeterminismError(
            f"step {t}, run twice from the same state, gave two results: {difference(first, second, learner.name_at)}. "
            f"A replay would not be exact. {CAUSES}"
        )


class Guard:
    """Fingerprints of the first sweep, by step."""

    def __init__(self, layout: ParameterLayout, ranks: Ranks = ALONE) -> None:
        first = ranks.part(layout.length).start
        self.ranks, self._name_at = ranks, lambda i: layout.name_at(first + i)
        self._first: dict[int, Fingerprint] = {}

    def note(self, step: int, state: State) -> None:
        """Take the fingerprint of the state before ``step``, which the first sweep passes."""
        self._first[step] = fingerprint(state)

    def check(self, step: int, state: State, again: Callable[[], Iterator[tuple[int, State]]]) -> None:
        """Compare a replay that ends in ``state``, that before ``step``; steps never noted are let through.

        ``again`` does the replay once more and yields each step's number and the state before it.

        Raises:
            NondeterminismError: says what differs, by how much, and from which step on.
        """
        first = self._first.get(step)
        if first is None:
            return
        now = fingerprint(state)
        if not self.ranks.anywhere(now != first):  # a third computation needs all ranks
            return
        moved = (i for i, pair in enumerate(zip(first, now, strict=True)) if pair[0] != pair[1])
        changed = ", ".join(_tensor_names(moved)) or "part on another rank"
        raise NondeterminismError(
            f"the state before step {step} was recomputed and differs from the first time in its {changed}: "
            f"{self._explain(step, state, again())}. The metagradient would not be exact. {CAUSES}"
        )

    def _explain(self, end: int, replayed: State, again: Iterator[tuple[int, State]]) -> str:
        """What a third computation shows."""
        departed: int | None = None
        last = replayed
        for step, last in again:
            if departed is None and self._first.get(step, fingerprint(last)) != fingerprint(last):
                departed = step
        if departed is None:
            apart = difference(last, replayed, self._name_at)
            return f"a third computation gave the first state again, so the second strayed: {apart}"
        since = f"a third computation departs from the first at the state before step {departed}"
        if fingerprint(last) == fingerprint(replayed):
            return f"{since}, and ends as the second time: something changed since the first sweep"
        return f"{since}, and differs from the second time too: {difference(replayed, last, self._name_at)}"

    def as_tensors(self) -> dict[str, Tensor]:
        """All fingerprints, to be kept with a run that may be resumed."""
        steps = sorted(self._first)
        joined = b"".join(b"".join(self._first[step]) for step in steps)
        digests = (
            torch.frombuffer(bytearray(joined), dtype=torch.uint8) if joined else torch.zeros(0, dtype=torch.uint8)
        )
        return {"guard.steps": torch.tensor(steps, dtype=torch.int64), "guard.digests": digests}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over the fingerprints of :meth:`as_tensors`."""
        steps, digests = tensors["guard.steps"].tolist(), bytes(tensors["guard.digests"].tolist())
        size = len(digests) // max(1, len(steps))
        for i, step in enumerate(steps):
            row = digests[i * size : (i + 1) * size]
            self._first[step] = tuple(row[at : at + 16] for at in range(0, size, 16))


def difference(first: State, second: State, name_at: Callable[[int], str]) -> str:
    """Where two states differ most, parameter by parameter, and by how much."""
    found = []
    for name, a, b in zip(_tensor_names(range(len(first.tensors))), first.tensors, second.tensors, strict=True):
        apart = (a.double() - b.double()).abs().nan_to_num(nan=torch.inf)
        changed = (a != b).nonzero()
        if len(changed):
            worst = name_at(int(apart.argmax()))
            found.append(
                f"{name} by up to {apart.max().item():.3g}, in '{worst}' ({len(changed):,} of {len(a):,} elements)"
            )
    return "; ".join(found) or "in signs of zero alone"


def _tensor_names(positions: Iterator[int] | range) -> Iterator[str]:
    return ("parameters" if i == 0 else f"moment {i}" for i in positions)
