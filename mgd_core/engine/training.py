"""Plain training: steps one after the other, recorded if asked, so that a killed training goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Callable

from mgd_core.engine.journal import ForwardPoint, Journal
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import State

Progress = Callable[[str, int], None]
"""Called with ('step' | 'reverse', step number) after each unit of work."""


def train(
    learner: Learner,
    state: State,
    start: int = 0,
    stop: int | None = None,
    on: Progress | None = None,
    journal: Journal | None = None,
) -> tuple[State, list[float]]:
    """Run steps ``start`` .. ``stop`` - 1 and return the state and the loss before each step.

    With a journal, go on from its newest point, and record at its interval.

    Raises:
        NonFiniteError: the loss became NaN or infinite; names the step.
    """
    stop = learner.steps if stop is None else stop
    losses: list[float] = []
    found = None if journal is None else journal.found(state.theta.device)
    if isinstance(found, ForwardPoint) and found.state is not None and start <= found.step <= stop:
        start, state, losses = found.step, found.state, found.losses
    learner.expect(range(start, stop))
    for t in range(start, stop):
        state, loss = checked_step(learner, state, t)
        losses.append(loss)
        if on:
            on("step", t)
        if journal is not None:
            journal.did_step()
            if journal.due:
                journal.forward(ForwardPoint(t + 1, state, losses, 0, {}))
            journal.settle()
    return state, losses


def checked_step(learner: Learner, state: State, t: int) -> tuple[State, float]:
    """State after step ``t`` and the loss before it.

    Raises:
        NonFiniteError: the loss became NaN or infinite; names the step.
    """
    after, loss = learner.step(state, t)
    value = loss.item()
    if not math.isfinite(value):
        raise NonFiniteError(
            f"the training loss became {value} at step {t}. Lower the learning rate, lengthen the warm-up or "
            "clip the gradient; if the data hold NaN, the pool's rejects table says where."
        )
    return after, value
