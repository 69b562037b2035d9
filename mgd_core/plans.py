"""Plans: in which order a reverse traversal visits the steps, and which states it keeps on the way.

The reverse sweep needs s_{T-1}, ..., s_k, but training makes them in the other order. A plan is an iterator of actions
that an executor interprets (mgd_core.replay); it is pure arithmetic on step numbers, so its cost is known before the
run: ``advances`` (untraced steps, beyond the one that turns at the end) and ``peak_states`` (states held at once).

``keep_all`` holds every state: T - k of them, no recomputation. ``binomial`` holds at most S and recomputes provably
least (Griewank & Walther 2000, "revolve", ACM TOMS 26(1)): with r the least integer such that C(S+r, S) >= T it needs

    advances(T, S) = r T - C(S+r, r-1),

no step being advanced more than r times. Not here: disk tiers, unknown T.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class Advance:
    """Run steps start .. stop-1 from the state at ``start``, keeping none of the states between."""

    start: int
    stop: int


@dataclass(frozen=True)
class Save:
    """Keep the working state, which is that of step ``step``."""

    step: int


@dataclass(frozen=True)
class Load:
    """Make the kept state of step ``step`` the working state."""

    step: int


@dataclass(frozen=True)
class Free:
    """Forget the kept state of step ``step``."""

    step: int


@dataclass(frozen=True)
class Turn:
    """Run the last step ``step`` and evaluate the target; the working state stays that of ``step``."""

    step: int


@dataclass(frozen=True)
class Reverse:
    """Differentiate step ``step``; the working state is that of ``step``."""

    step: int


Action = Advance | Save | Load | Free | Turn | Reverse


@dataclass(frozen=True)
class Plan:
    """A traversal of the window [start, stop) with its predicted cost."""

    name: str
    start: int
    stop: int
    slots: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a plan needs 0 <= start < stop; got the window [{self.start}, {self.stop})")
        if self.slots < 1:
            raise ValueError(f"a plan needs at least one slot (the window's first state); got {self.slots}")

    @property
    def steps(self) -> int:
        """Steps that are differentiated."""
        return self.stop - self.start

    @property
    def advances(self) -> int:
        """Untraced steps inside the window, without the turning step. Closed form for the binomial plan."""
        n, s = self.steps, min(self.slots, self.steps)
        r = repetitions(n, s)
        return r * n - comb(s + r, r - 1) if r else 0

    @property
    def peak_states(self) -> int:
        """States kept at once."""
        return min(self.slots, self.steps)

    def __iter__(self) -> Iterator[Action]:
        yield Save(self.start)
        yield from _binomial(self.start, self.stop, self.slots, last=self.stop)


def keep_all(start: int, stop: int) -> Plan:
    """Keep every state of the window: the binomial plan with as many slots as steps."""
    return Plan("keep_all", start, stop, stop - start)


def binomial(start: int, stop: int, slots: int) -> Plan:
    """Keep at most ``slots`` states of the window (its first one included) and recompute provably least."""
    return Plan("binomial", start, stop, slots)


def repetitions(steps: int, slots: int) -> int:
    """Least r with C(slots + r, slots) >= steps: how often a step may have to be advanced."""
    r = 0
    while comb(slots + r, slots) < steps:
        r += 1
    return r


def _binomial(start: int, stop: int, slots: int, last: int) -> Iterator[Action]:
    """Reverse [start, stop); the state at ``start`` is both kept and the working state, and is freed at the end."""
    while stop - start > 1 and slots > 1:
        middle = start + _split(stop - start, slots)
        yield Advance(start, middle)
        yield Save(middle)
        yield from _binomial(middle, stop, slots - 1, last)
        yield Load(start)
        stop = middle
    for step in range(stop - 1, start - 1, -1):
        if step > start:
            yield Advance(start, step)
        if step + 1 == last:
            yield Turn(step)
        yield Reverse(step)
        if step > start:
            yield Load(start)
    yield Free(start)


def _split(steps: int, slots: int) -> int:
    """Steps to advance before the next state is kept: any value within these bounds is optimal."""
    r = repetitions(steps, slots)
    upper = min(comb(slots + r - 1, r - 1), steps - comb(slots + r - 2, r - 1))
    return max(1, upper, steps - comb(slots + r - 1, r))
