"""REPLAY: the exact gradient of a target through a whole training run (Engstrom et al. 2025, arXiv 2503.13751, sec. 3).

Only the window [k, T) is differentiated: what happened before step k counts as fixed. Cost: T steps, the plan's
advances, and about 2.7 steps for each reverse step (mgd_core.reverse). Two surrogates come out of one traversal:

* ``path``: weights enter wherever an example is visited in the window; its gradient is summed over the visits;
* ``probe``: ``gamma`` of step k (and of any other steps asked for), from which mgd_core.probe scores any candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mgd_core.learner import Learner
from mgd_core.optimizers import State
from mgd_core.plans import Advance, Free, Load, Plan, Reverse, Save, Turn
from mgd_core.reverse import NonFiniteError, check_finite, reverse_step
from mgd_core.store import MemoryStore

Target = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps flat parameters (P,) to the target loss phi (scalar) and its gradient (P,)."""
Progress = Callable[[str, int], None]
"""Called with ('step' | 'reverse', step number) after each unit of work."""


@dataclass(frozen=True)
class ProbePoint:
    """Where candidates may enter: parameters theta_k and the cotangent gamma_k of step k's gradient, each (P,)."""

    step: int
    theta: Tensor
    gamma: Tensor


@dataclass
class Metagradient:
    """d phi / d z for the metaparameters of the window, and what it cost.

    ``example``: (pool size,) sums over visits of d phi / d w; ``visits``: (pool size,) how often each example was seen
    in the window; ``learning_rate``: (T,), zero before the window; ``state``: adjoint of s_k.
    """

    phi: float
    final: State
    example: Tensor
    visits: Tensor
    learning_rate: Tensor
    train_losses: list[float]
    probes: list[ProbePoint] = field(default_factory=list)
    adjoint: State | None = None
    advances: int = 0
    reverse_steps: int = 0
    peak_states: int = 0
    peak_bytes: int = 0


def train(
    learner: Learner, state: State, start: int = 0, stop: int | None = None, on: Progress | None = None
) -> tuple[State, list[float]]:
    """Run steps ``start`` .. ``stop`` - 1 and return the state and the loss before each step.

    Raises:
        NonFiniteError: the loss became NaN or infinite; names the step.
    """
    losses = []
    for t in range(start, learner.steps if stop is None else stop):
        state, loss = learner.step(state, t)
        losses.append(loss.item())
        if not torch.isfinite(loss):
            raise NonFiniteError(
                f"the training loss became {loss.item()} at step {t}. Lower the learning rate, lengthen the warm-up or "
                "clip the gradient; if the data hold NaN, the pool's rejects table says where."
            )
        if on:
            on("step", t)
    return state, losses


def replay(
    learner: Learner,
    initial: State,
    target: Target,
    plan: Plan,
    pool_size: int,
    probe_steps: Collection[int] = (),
    gradient_from_moments: bool = True,
    on: Progress | None = None,
) -> Metagradient:
    """Train from ``initial``, evaluate ``target``, and traverse the window of ``plan`` in reverse.

    ``probe_steps``: steps of the window whose (theta, gamma) are returned for probing. ``pool_size``: length of the
    example axis that ``Batch.ids`` index into.

    Raises:
        NonFiniteError: a loss or cotangent became NaN or infinite (step and parameter named).
        NondeterminismError: a replayed state differs from the first one.
        ValueError: the plan's window does not end with the training, or a probe step lies outside it.
    """
    if plan.stop != learner.steps:
        raise ValueError(f"the plan ends at step {plan.stop}, the training at step {learner.steps}: they must agree")
    outside = [k for k in probe_steps if not plan.start <= k < plan.stop]
    if outside:
        raise ValueError(f"probe steps {outside} lie outside the differentiated window [{plan.start}, {plan.stop})")
    return _Traversal(learner, target, plan, pool_size, set(probe_steps), gradient_from_moments, on).run(initial)


class _Traversal:
    """Interprets a plan's actions; holds the working state, the adjoint and the sums."""

    def __init__(
        self,
        learner: Learner,
        target: Target,
        plan: Plan,
        pool_size: int,
        probe_steps: set[int],
        gradient_from_moments: bool,
        on: Progress | None,
    ) -> None:
        self.learner, self.target, self.plan = learner, target, plan
        self.pool_size, self.probe_steps, self.on = pool_size, probe_steps, on
        self.gradient_from_moments = gradient_from_moments
        self.store = MemoryStore()
        self.reached = plan.start  # first-sweep frontier: losses are recorded once
        self.after: State | None = None  # state after the step to be reversed next

    def run(self, initial: State) -> Metagradient:
        self.state, losses = train(self.learner, initial, 0, self.plan.start, self.on)
        self.result = Metagradient(
            phi=float("nan"),
            final=initial,
            example=initial.theta.new_zeros(self.pool_size),
            visits=torch.zeros(self.pool_size, dtype=torch.int64, device=initial.theta.device),
            learning_rate=initial.theta.new_zeros(self.learner.steps),
            train_losses=losses,
        )
        for action in self.plan:
            match action:
                case Advance(start, stop):
                    self._advance(start, stop)
                case Save(step):
                    self.store.save(step, self.state)
                case Load(step):
                    self.state = self.store.load(step)
                case Free(step):
                    self.store.free(step)
                case Turn(step):
                    self._turn(step)
                case Reverse(step):
                    self._reverse(step)
        return self._finish()

    def _advance(self, start: int, stop: int) -> None:
        for t in range(start, stop):
            self.store.witness(t, self.state)
            self.state, losses = train(self.learner, self.state, t, t + 1, self.on)
            self.result.advances += 1
            if t == self.reached:
                self.result.train_losses += losses
                self.reached += 1
        self.store.witness(stop, self.state)

    def _turn(self, step: int) -> None:
        self.after, losses = train(self.learner, self.state, step, step + 1, self.on)
        self.result.train_losses += losses
        phi, gradient = self.target(self.after.theta)
        check_finite("the gradient of the target", gradient, step, self.learner.layout)
        self.result.phi, self.result.final = phi.item(), self.after
        zeros = tuple(torch.zeros_like(m) for m in self.after.moments)
        self.adjoint = State(gradient, zeros)

    def _reverse(self, t: int) -> None:
        assert self.after is not None
        batch = self.learner.batches(t)
        step = reverse_step(self.learner, self.state, self.after, self.adjoint, t, batch, self.gradient_from_moments)
        if t in self.probe_steps:
            self.result.probes.append(ProbePoint(t, self.state.theta, step.gamma))
        self.adjoint = step.adjoint
        self.result.example.index_add_(-1, batch.ids, step.weights)
        self.result.visits.index_add_(0, batch.ids, torch.ones_like(batch.ids))
        self.result.learning_rate[..., t] = step.lr
        self.result.reverse_steps += 1
        self.after = self.state
        if self.on:
            self.on("reverse", t)

    def _finish(self) -> Metagradient:
        result = self.result
        result.adjoint = self.adjoint
        result.peak_states, result.peak_bytes = self.store.peak_states, self.store.peak_bytes
        predicted, actual = (self.plan.advances, self.plan.peak_states), (result.advances, result.peak_states)
        assert predicted == actual, f"plan {self.plan} predicted {predicted} advances and peak states, ran {actual}"
        return result
