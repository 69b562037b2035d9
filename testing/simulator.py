"""Runs a plan on step numbers alone: refuses what no executor could do, and counts what the plan did.

The oracle of the plans: it knows the meaning of the six actions and nothing of how a plan is made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mgd_core.plans.actions import Action, Advance, Free, Load, Plan, Reverse, Save, Tier, Turn


class IllegalActionError(AssertionError):
    """An action that cannot be done, with what the simulation held then."""


@dataclass
class Simulation:
    """What a traversal of [start, stop) holds and has done so far.

    ``working``: step of the working state, None where there is none yet; ``position``: steps from here on are reversed;
    ``kept``: steps on each tier. ``sweeping``: the first sweep has not turned yet.
    """

    start: int
    position: int
    working: int | None
    sweeping: bool
    kept: dict[Tier, set[int]] = field(default_factory=lambda: {tier: set() for tier in Tier})
    advances: int = 0
    reversals: int = 0
    peak: dict[Tier, int] = field(default_factory=dict)
    saves: dict[Tier, int] = field(default_factory=lambda: dict.fromkeys(Tier, 0))
    loads: dict[Tier, int] = field(default_factory=lambda: dict.fromkeys(Tier, 0))

    @classmethod
    def of(cls, plan: Plan) -> Simulation:
        """The beginning of a whole traversal: the working state is that of the window's first step."""
        return cls(plan.start, plan.stop, plan.start, sweeping=True)

    @classmethod
    def resumed(cls, plan: Plan, kept: Collection[int], position: int) -> Simulation:
        """Where the reverse sweep is to go on: nothing in memory, ``kept`` on disk."""
        resumed = cls(plan.start, position, None, sweeping=False)
        return resumed._with_disk(kept)

    @classmethod
    def forward_resumed(cls, plan: Plan, kept: Collection[int], at: int) -> Simulation:
        """Where the first sweep is to go on: the working state is that of ``at``, ``kept`` on disk."""
        return cls(plan.start, plan.stop, at, sweeping=True)._with_disk(kept)

    @property
    def transfers(self) -> dict[Tier, tuple[int, int]]:
        """Saves and loads of the tiers used other than the device."""
        slow = (tier for tier in Tier if tier is not Tier.DEVICE and self.saves[tier] + self.loads[tier])
        return {tier: (self.saves[tier], self.loads[tier]) for tier in slow}

    def run(self, actions: Iterable[Action]) -> Simulation:
        """Do all actions and check that the traversal is complete."""
        for action in actions:
            self.do(action)
        left = {str(tier): sorted(steps) for tier, steps in self.kept.items() if steps}
        if self.position != self.start or left:
            raise IllegalActionError(f"the traversal ended at step {self.position} of {self.start}, keeping {left}")
        return self

    def do(self, action: Action) -> None:
        """Do one action.

        Raises:
            IllegalActionError: it cannot be done here.
        """
        match action:
            case Advance(start, stop):
                # The state after the last step that remains is no state that a reverse traversal needs.
                self._check(self.working == start < stop < self.position, action)
                self.working = stop
                self.advances += stop - start
            case Save(step, tier):
                self._check(self.working == step and step not in self.kept[tier], action)
                self.kept[tier].add(step)
                self.saves[tier] += 1
                self.peak[tier] = max(self.peak.get(tier, 0), len(self.kept[tier]))
            case Load(step, tier):
                self._check(step in self.kept[tier] and step < self.position, action)
                self.working = step
                self.loads[tier] += 1
            case Free(step, tier):
                self._check(step in self.kept[tier], action)
                self.kept[tier].remove(step)
            case Turn(step):
                self._check(self.sweeping and self.working == step == self.position - 1, action)
                self.sweeping = False
            case Reverse(step):
                self._check(not self.sweeping and self.working == step == self.position - 1, action)
                self.position = step
                self.reversals += 1

    def _with_disk(self, kept: Collection[int]) -> Simulation:
        self.kept[Tier.DISK] = set(kept)
        self.peak[Tier.DISK] = len(kept)
        return self

    def _check(self, legal: bool, action: Action) -> None:
        if not legal:
            raise IllegalActionError(f"{action} is impossible here: {self}")


def simulate(plan: Plan) -> Simulation:
    """Run a whole plan."""
    return Simulation.of(plan).run(plan)
