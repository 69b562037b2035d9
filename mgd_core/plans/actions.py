"""What a reverse traversal is made of: actions on training states, the tiers that keep them, and the form of a plan.

The reverse sweep needs s_{T-1}, ..., s_k, but training makes them in the other order. A plan says which states are
kept on the way and which are made again. It is an iterator of actions that an executor interprets
(mgd_core.engine.replay), and pure arithmetic on step numbers, so its cost is known before the run: ``advances``,
``peak_states``, ``transfers``.

A plan has two layers. The outer one keeps states on a slower tier at the plan's cuts (mgd_core.plans.segments; the
other plans have none). The inner one, ``within``, reverses what lies between two cuts from the state at the first and
from memory alone. Only the outer layer outlives a process, so a traversal that was cut off goes on from its states:
``forward_resumed`` in the first sweep, ``resumed`` in the reverse one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """Where a state is kept. On a CPU ``DEVICE`` is main memory, and ``HOST`` is not used."""

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"


@dataclass(frozen=True)
class Advance:
    """Run steps start .. stop-1 from the state at ``start``, keeping none of the states between."""

    start: int
    stop: int


@dataclass(frozen=True)
class Save:
    """Keep the working state, which is that of step ``step``, on ``tier``."""

    step: int
    tier: Tier = Tier.DEVICE


@dataclass(frozen=True)
class Load:
    """Make the state of step ``step`` that ``tier`` keeps the working state; it stays kept."""

    step: int
    tier: Tier = Tier.DEVICE


@dataclass(frozen=True)
class Free:
    """Forget the state of step ``step`` that ``tier`` keeps."""

    step: int
    tier: Tier = Tier.DEVICE


@dataclass(frozen=True)
class Turn:
    """Run the last step ``step`` and evaluate the target; the working state stays that of ``step``."""

    step: int


@dataclass(frozen=True)
class Reverse:
    """Differentiate step ``step``; the working state is that of ``step``."""

    step: int


Action = Advance | Save | Load | Free | Turn | Reverse


def batch_order(actions: Iterable[Action]) -> Iterator[int]:
    """Steps in the order in which an executor of ``actions`` needs their batches."""
    for action in actions:
        match action:
            case Advance(start, stop):
                yield from range(start, stop)
            case Turn(step) | Reverse(step):
                yield step


@dataclass(frozen=True)
class Plan(ABC):
    """A traversal of the window [start, stop) with its predicted cost. Iterate it for its actions."""

    name: str
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a plan needs 0 <= start < stop; got the window [{self.start}, {self.stop})")

    @property
    def steps(self) -> int:
        """Steps that are differentiated."""
        return self.stop - self.start

    @property
    @abstractmethod
    def advances(self) -> int:
        """Untraced steps inside the window, without the one that turns: steps - 1 and what is recomputed."""

    @property
    @abstractmethod
    def peak_states(self) -> dict[Tier, int]:
        """States kept at once, for each tier in use."""

    @property
    def transfers(self) -> dict[Tier, tuple[int, int]]:
        """Saves and loads of each tier in use but the device."""
        return {}

    @property
    def outer(self) -> Tier:
        """Tier that keeps the states at the cuts."""
        return Tier.DEVICE

    def next_cut(self, step: int) -> int:
        """The first cut beyond ``step``, or ``stop`` where there is none. The first cut of all is ``start``."""
        return self.stop

    @abstractmethod
    def within(self, start: int, stop: int, turn: bool) -> Iterator[Action]:
        """Reverse [start, stop) from the working state of ``start``, in memory; nothing is kept before or after.

        ``turn``: step ``stop`` - 1 is the last of the training and turns.
        """

    def __iter__(self) -> Iterator[Action]:
        return self._from(self.start, {})

    def forward_resumed(self, at: int, kept: Collection[int]) -> Iterator[Action]:
        """Go on with the first sweep: the working state is that of ``at``, the disk keeps ``kept`` (``start`` too).

        From ``at`` on the traversal is the plan's own. What the plan would hold in memory before ``at`` is made again
        from the states on disk, each of which is freed when all after it is reversed, ``start`` last.

        Raises:
            ValueError: ``at`` is outside the window, or ``start`` is not kept.
        """
        if not self.start <= at < self.stop:
            raise ValueError(f"cannot resume at step {at}: it lies outside the window [{self.start}, {self.stop})")
        return self._resumed(kept, at + 1, at)

    def resumed(self, position: int, kept: Collection[int]) -> Iterator[Action]:
        """Go on with the reverse sweep: steps [start, position) remain, the disk keeps ``kept`` (``start`` too).

        Nothing turns. Kept states from ``position`` on are freed first; then the newest of the others is loaded, and so
        on back to ``start``, each being freed when all after it is reversed.

        Raises:
            ValueError: ``position`` is outside the window, or ``start`` is not kept.
        """
        if not self.start <= position <= self.stop:
            raise ValueError(f"steps up to {position} cannot remain in the window [{self.start}, {self.stop})")
        return self._resumed(kept, position, None)

    def _resumed(self, kept: Collection[int], before: int, at: int | None) -> Iterator[Action]:
        """The resumed traversal; kept states from step ``before`` on are of no use."""
        if self.start not in kept or min(kept) < self.start:
            raise ValueError(
                f"to resume the window [{self.start}, {self.stop}) the disk must keep the state of step {self.start} "
                f"and none before it; it keeps those of {sorted(kept)}. Begin the traversal again."
            )
        useless = [Free(step, Tier.DISK) for step in sorted(kept, reverse=True) if step >= before]
        held = {step: Tier.DISK for step in sorted(kept) if step < before}
        return _chain(useless, self._back(before, held) if at is None else self._from(at, held))

    def _from(self, at: int, held: dict[int, Tier]) -> Iterator[Action]:
        """The traversal from ``at`` of the first sweep; ``held``: tiers of the outer states kept, by ascending step."""
        if at not in held and self.next_cut(at - 1) == at:
            held[at] = self.outer
            yield Save(at, self.outer)
        position = yield from self._stretch(at, self.stop, True, held)
        yield from self._back(position, held)

    def _back(self, position: int, held: dict[int, Tier]) -> Iterator[Action]:
        """Reverse [start, position) from the outer states, newest first."""
        while held:
            at, tier = next(reversed(held.items()))
            yield Load(at, tier)
            position = yield from self._stretch(at, position, False, held)

    def _stretch(self, at: int, stop: int, turn: bool, held: dict[int, Tier]) -> Generator[Action, None, int]:
        """Keep the states at the cuts beyond ``at``, then reverse from the last of them on; return where that is."""
        while (cut := self.next_cut(at)) < stop:
            yield Advance(at, cut)
            yield Save(cut, self.outer)
            held[cut] = self.outer
            at = cut
        yield from self.within(at, stop, turn)
        if at in held:
            yield Free(at, held.pop(at))
        return at


def _chain(first: Collection[Action], then: Iterator[Action]) -> Iterator[Action]:
    yield from first
    yield from then
