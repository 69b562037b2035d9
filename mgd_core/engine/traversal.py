"""The executor of plans: interprets a plan's actions, and goes on from a journal's newest point.

It holds the working state, the adjoint and the sums; a store holds what the plan keeps. States on disk are removed only
after the record of a position that needs them no more. Loads from slower tiers are announced to the store ahead.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, tee

import torch

from mgd_core.autodiff.directions import Finding
from mgd_core.engine.examination import examined, probe_way_of
from mgd_core.engine.guard import Guard, check_step
from mgd_core.engine.journal import ForwardPoint, Journal, ReversePoint
from mgd_core.engine.metagradient import Metagradient, ProbePoint
from mgd_core.engine.metaparameters import ExampleWeights, LearningRates, Metaparameter
from mgd_core.engine.over_ranks import Target, at_first, gathered
from mgd_core.engine.reverse import check_finite, reverse_step
from mgd_core.engine.store import Peaks, Store
from mgd_core.engine.training import Progress, checked_step, train
from mgd_core.plans.actions import Action, Advance, Free, Load, Plan, Reverse, Save, Tier, Turn, batch_order
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import State

AHEAD = 12  # actions: about four reverse steps, time enough to read a state, and short enough to hold it


class Traversal:
    """One traversal of a plan's window."""

    def __init__(
        self,
        learner: Learner,
        target: Target,
        plan: Plan,
        pool_size: int,
        probe_steps: set[int],
        gradient_from_moments: bool,
        on: Progress | None,
        store: Store,
        journal: Journal | None,
        metaparameters: Sequence[Metaparameter] = (),
    ) -> None:
        self.learner, self.target, self.plan = learner, target, plan
        self.pool_size, self.probe_steps, self.on = pool_size, probe_steps, on
        self.gradient_from_moments = gradient_from_moments
        self.store, self.journal = store, journal
        self.metaparameters = (ExampleWeights(pool_size), LearningRates(), *metaparameters)
        self.inputs = sorted({column for kind in self.metaparameters for column in kind.inputs})
        self.guard, self.peaks = Guard(learner.layout, learner.ranks), Peaks()
        self.reached = plan.start  # first step that the first sweep has not run
        self.position = plan.stop  # steps from here on are reversed
        self.after: State | None = None  # state at ``position``, once the sweep has turned
        self.anchor: State | None = None  # state at the window's start, until it is on disk
        self.released: list[int] = []  # states on disk that go with the next record
        self.resumed = False
        self.finding = Finding()

    def run(self, initial: State) -> Metagradient:
        """Train from ``initial``, or go on from the journal's newest point, and traverse the plan's window."""
        self._check_room(initial)
        actions, told = tee(self._begin(initial))
        self.learner.expect(batch_order(told))
        del told  # or all actions would be kept for it
        window = deque(islice(actions, AHEAD))
        while window:
            action = window.popleft()
            window.extend(islice(actions, 1))
            self._prefetch(window)
            self._do(action)
        return self._finish()

    def _check_room(self, initial: State) -> None:
        states = self.plan.peak_states.get(Tier.DISK, 0)
        if self.journal is not None:
            # The start's state; final state; state and adjoint, twice while a record replaces the one before it.
            # Several ranks keep a record of each sweep more, and what the plan frees until the next record.
            states += (self.plan.outer is not Tier.DISK) + (5 if self.learner.ranks.count == 1 else 9)
        totals = [kind.zeros(initial.theta.new_zeros(()), self.learner) for kind in self.metaparameters]
        sums = 2 * (self.pool_size * 8 + sum(x.nbytes for x in totals)) * (self.journal is not None)
        points = 2 * initial.theta.nbytes * len(self.probe_steps) * (self.journal is not None)
        if states:
            self.store.check_room(states * initial.nbytes + sums + points, f"the states of plan '{self.plan.name}'")

    def _begin(self, initial: State) -> Iterator[Action]:
        """The actions that remain, with everything set for the first of them."""
        self.device = initial.theta.device
        found = None if self.journal is None else self.journal.found(self.device)
        if isinstance(found, ReversePoint):
            return self._go_on_in_reverse(found, initial)
        if isinstance(found, ForwardPoint) and (actions := self._go_on_forward(found, initial)) is not None:
            return actions
        for step in self.store.kept(Tier.DISK):  # of no use without a record that names them
            self.store.free(step, Tier.DISK)
        self._examine(initial, initial, 0)
        self.state, losses = train(self.learner, initial, 0, self.plan.start, self.on, self.journal)
        self.anchor = self.state if self.journal is not None else None
        self._prepare(losses)
        return iter(self.plan)

    def _prepare(self, losses: list[float]) -> None:
        """An empty result; the sums get their shape from phi when the sweep turns."""
        self.result = Metagradient(
            phi=self.state.theta.new_zeros(()),
            final=self.state,
            sums={},
            visits=torch.zeros(self.pool_size, dtype=torch.int64, device=self.device),
            train_losses=losses,
            state_bytes=self.state.nbytes,
        )

    def _go_on_forward(self, found: ForwardPoint, initial: State) -> Iterator[Action] | None:
        """From a point inside the window; None where it lies before it, or where its state is gone."""
        kept = [step for step in self.store.kept(Tier.DISK) if self.plan.start <= step <= found.step]
        at = found.step if found.state is not None else kept[-1] if kept else -1
        if at < self.plan.start or (found.step == self.plan.start and found.state is not None):
            return None
        self.guard.restore(found.fingerprints)
        self._restore_start(initial)
        state = self.store.load(at, Tier.DISK, self.device) if found.state is None else found.state
        self._examine(initial, state, at)
        self.state, self.reached, self.resumed = state, at, True
        self._prepare(found.losses[:at])
        self.result.advances = found.advances - (found.step - at)
        return self.plan.forward_resumed(at, self.store.kept(Tier.DISK))

    def _go_on_in_reverse(self, found: ReversePoint, initial: State) -> Iterator[Action]:
        self.guard.restore(found.fingerprints)
        self._restore_start(initial)
        self._examine(initial, found.after, found.position)
        names = {kind.name for kind in self.metaparameters}
        assert found.result.sums.keys() == names, f"the journal is of {set(found.result.sums)}, not of {names}"
        self.result, self.adjoint, self.after = found.result, found.adjoint, found.after
        self.result.reverse_steps = self.plan.stop - found.position
        self.result.state_bytes = found.after.nbytes
        self.state = found.after
        self.position, self.reached, self.resumed = found.position, self.plan.stop, True
        return self.plan.resumed(found.position, self.store.kept(Tier.DISK))

    def _restore_start(self, initial: State) -> None:
        """A resumed plan needs the window's first state on disk; where its file is gone, train up to it again."""
        start = self.plan.start
        if start not in self.store.kept(Tier.DISK):
            state, _ = train(self.learner, initial, 0, start, self.on)
            self.guard.check(start, state, lambda: self._again(initial, 0, start))
            self.store.save(start, state, Tier.DISK)

    def _examine(self, initial: State, state: State, t: int) -> None:
        """Before any step: whether the model can be differentiated exactly, by which way, and whether a step repeats.

        Whatever the number of steps: a window of two steps is as wrong as a long one. The way is found at the first
        state, so that a process that goes on takes the same.
        """
        caution = getattr(self.learner.optimizer, "caution", None)
        if caution:
            warnings.warn(caution, stacklevel=2)
        batch, theta = self.learner.batches(0), self.learner.parameters(initial)
        self.finding = examined(self.learner, theta, batch, self.inputs)
        if self.probe_steps and self.learner.ranks.first:
            probe_way_of(self.learner, theta, batch)
        if t < self.plan.stop:
            check_step(self.learner, state, t, batch if t == 0 else None)

    def _prefetch(self, window: deque[Action]) -> None:
        """Tell the store of the next load from a slower tier."""
        for action in window:
            if isinstance(action, Load) and action.tier is not Tier.DEVICE:
                self.store.prefetch(action.step, action.tier)
                break

    def _do(self, action: Action) -> None:
        match action:
            case Advance(start, stop):
                self._advance(start, stop)
            case Save(step, tier):
                self._save(step, tier)
            case Load(step, tier):
                self.state = self.store.load(step, tier, self.device)
            case Free(step, tier):
                self._free(step, tier)
            case Turn(step):
                self._turn(step)
            case Reverse(step):
                self._reverse(step)

    def _advance(self, start: int, stop: int) -> None:
        replayed, origin = stop <= self.reached, self.state
        for t in range(start, stop):
            self.state, loss = checked_step(self.learner, self.state, t)
            self.result.advances += 1
            if t == self.reached:
                self.reached += 1
                self.result.train_losses.append(loss)
                # The last is kept or differentiated at once; only a process that goes on after a kill makes it again.
                if t + 1 < stop or self.journal is not None:
                    self.guard.note(t + 1, self.state)
                self._did_step("step", t)
            elif self.on:
                self.on("step", t)
        if replayed:
            self.guard.check(stop, self.state, lambda: self._again(origin, start, stop))

    def _again(self, state: State, start: int, stop: int) -> Iterator[tuple[int, State]]:
        for t in range(start, stop):
            state, _ = checked_step(self.learner, state, t)
            yield t + 1, state

    def _save(self, step: int, tier: Tier) -> None:
        self.store.save(step, self.state, tier)
        self.peaks.save(step, tier)
        if self.journal is not None and tier is Tier.DISK and step == self.reached:
            if step == self.plan.start:
                self.anchor = None
            self._record_forward(None)

    def _free(self, step: int, tier: Tier) -> None:
        self.peaks.free(step, tier)
        if self.journal is not None and tier is Tier.DISK:
            self.released.append(step)
        else:
            self.store.free(step, tier)

    def _turn(self, step: int) -> None:
        self.after, loss = checked_step(self.learner, self.state, step)
        self.reached = step + 1
        self.result.train_losses.append(loss)
        phi, gradient = at_first(self.learner, self.target, self.after)
        check_finite("the gradient of the target", gradient, step, self.learner.name_at)
        self.result.phi, self.result.final = phi.detach(), self.after
        empty = gradient.new_zeros(phi.shape)
        self.result.sums = {kind.name: kind.zeros(empty, self.learner) for kind in self.metaparameters}
        self.adjoint = State(gradient, tuple(m.new_zeros(gradient.shape) for m in self.after.moments))
        self._did_step("step", step)

    def _reverse(self, t: int) -> None:
        assert self.after is not None and t + 1 == self.position, f"step {t} reversed out of turn"
        batch = self.learner.batches(t)
        step = reverse_step(
            *(self.learner, self.state, self.after, self.adjoint, t, batch, self.gradient_from_moments, self.inputs),
            self.finding,
        )
        if t in self.probe_steps:
            self.result.probes.append(ProbePoint(t, self.state.theta, step.gamma))
        self.adjoint, self.after, self.position = step.adjoint, self.state, t
        for kind in self.metaparameters:
            kind.collect(self.result.sums[kind.name], step, t, batch)
        self.result.visits.index_add_(0, batch.ids, torch.ones_like(batch.ids))
        self.result.reverse_steps += 1
        self._did_step("reverse", t)

    def _did_step(self, what: str, t: int) -> None:
        """A step that was not done before is done: record, where it is time."""
        if self.on:
            self.on(what, t)
        if self.journal is not None:
            self.journal.did_step()
            if self.journal.due:
                self._record_forward(self.state) if self.after is None else self._record_reverse()
            self.journal.settle()

    def _record_forward(self, state: State | None) -> None:
        """``state``: the working state; None where it was just saved on disk."""
        assert self.journal is not None
        self._drop_anchor()
        losses, fingerprints = list(self.result.train_losses), self.guard.as_tensors()
        self.journal.forward(ForwardPoint(self.reached, state, losses, self.result.advances, fingerprints))

    def _record_reverse(self) -> None:
        assert self.journal is not None and self.after is not None
        self._drop_anchor()
        fingerprints = self.guard.as_tensors()
        self.journal.reverse(ReversePoint(self.position, self.after, self.adjoint, self.result, fingerprints))
        for step in self.released:  # the writer removes them after the record
            self.journal.release(partial(self.store.free, step, Tier.DISK))
        self.released.clear()

    def _drop_anchor(self) -> None:
        """Put the window's first state on disk, before the first record that needs it there."""
        if self.anchor is not None:
            self.guard.note(self.plan.start, self.anchor)
            self.store.save(self.plan.start, self.anchor, Tier.DISK)
            self.anchor = None

    def _finish(self) -> Metagradient:
        result = gathered(self.learner, self.result, self.adjoint)
        result.peak_states = self.peaks.states
        if not self.resumed:
            predicted = self.plan.advances, self.plan.peak_states
            actual = result.advances, result.peak_states
            assert predicted == actual, f"plan {self.plan} predicted {predicted} advances and states, ran {actual}"
        return result
