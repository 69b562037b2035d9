"""Plans in memory alone: keep every state, or as many as fit and recompute least.

``keep_all`` holds every state: T - k of them, no recomputation. ``binomial`` holds at most S and recomputes provably
least (Griewank & Walther 2000, "revolve", ACM TOMS 26(1)): with r the least integer such that C(S+r, S) >= T it needs

    advances(T, S) = r T - C(S+r, r-1),

no step being advanced more than r times. What the other plans need: mgd_core.plans.kary, mgd_core.plans.segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

from mgd_core.plans.actions import Action, Advance, Free, Load, Plan, Reverse, Save, Tier, Turn

__all__ = ["Binomial", "Plan", "binomial", "keep_all", "least_advances", "repetitions", "revolve"]


@dataclass(frozen=True)
class Binomial(Plan):
    """At most ``slots`` states in memory, the window's first one included."""

    slots: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_slots(self.slots)

    @property
    def advances(self) -> int:
        """Untraced steps inside the window, by the closed form."""
        return least_advances(self.steps, self.slots)

    @property
    def peak_states(self) -> dict[Tier, int]:
        """States kept at once."""
        return {Tier.DEVICE: min(self.slots, self.steps)}

    def within(self, start: int, stop: int, turn: bool) -> Iterator[Action]:
        """Reverse [start, stop) with all slots."""
        return revolve(start, stop, self.slots, turn)


def keep_all(start: int, stop: int) -> Plan:
    """Keep every state of the window: the binomial plan with as many slots as steps."""
    return Binomial("keep_all", start, stop, max(1, stop - start))


def binomial(start: int, stop: int, slots: int) -> Plan:
    """Keep at most ``slots`` states of the window (its first one included) and recompute provably least."""
    return Binomial("binomial", start, stop, slots)


def check_slots(slots: int) -> None:
    """Refuse plans that cannot keep the state they start from."""
    if slots < 1:
        raise ValueError(f"a plan needs at least one slot (the window's first state); got {slots}")


def least_advances(steps: int, slots: int) -> int:
    """The least untraced steps with which ``steps`` steps are reversed in ``slots`` slots: advances(T, S) above."""
    slots = min(slots, steps)
    r, reach = repetitions(steps, slots)
    # C(s+r, r-1) = C(s+r, r) r / (s+1)
    return r * steps - reach * r // (slots + 1)


def repetitions(steps: int, slots: int) -> tuple[int, int]:
    """The least r with C(slots + r, slots) >= steps, which is how often a step may be advanced; and C(slots + r, r)."""
    if slots == 1:
        return steps - 1, steps
    r, reach = 0, 1
    while reach < steps:
        r += 1
        reach = reach * (slots + r) // r
    return r, reach


def revolve(start: int, stop: int, slots: int, turn: bool) -> Iterator[Action]:
    """Reverse [start, stop) from the working state of ``start`` in ``slots`` device slots; step ``stop`` - 1 may turn.

    The kept steps are a stack, so that runs of any length need no recursion.
    """
    yield Save(start)
    kept = [start]
    while kept:
        begin = kept[-1]
        while len(kept) < slots and stop - begin > 1:
            middle = begin + _split(stop - begin, slots - len(kept) + 1)
            yield Advance(begin, middle)
            yield Save(middle)
            kept.append(middle)
            begin = middle
        stop -= 1
        if begin < stop:
            yield Advance(begin, stop)
        if turn:
            yield Turn(stop)
            turn = False
        yield Reverse(stop)
        if begin == stop:
            yield Free(kept.pop())
        if kept:
            yield Load(kept[-1])


def _split(steps: int, slots: int) -> int:
    """Steps to advance before the next state is kept: any value within these bounds is optimal."""
    slots = min(slots, steps)
    r, _ = repetitions(steps, slots)
    upper = min(comb(slots + r - 1, r - 1), steps - comb(slots + r - 2, r - 1))
    return max(1, upper, steps - comb(slots + r - 1, r))
