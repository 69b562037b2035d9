"""The k-ary plan: the lazy tree of the metagradient paper (Engstrom et al. 2025, sec. 3.2), in its tight form.

A node of the tree stands for a stretch of steps and is split evenly into k children, the longer ones first; its first
child starts from the node's own state. Entering a node advances to its last child, keeping the state at the start of
each, and the children are reversed last to first. With D = log_k T levels it takes at most D T advances and about
D (k - 1) + 1 states. The binomial plan (mgd_core.plans.plan) needs fewer advances for the same states: this plan is
here as the paper's, to be compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from mgd_core.plans.actions import Action, Advance, Free, Load, Plan, Reverse, Save, Tier, Turn


@dataclass(frozen=True)
class Kary(Plan):
    """The tree with ``arity`` children a node."""

    arity: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arity < 2:
            raise ValueError(f"a k-ary plan needs an arity of at least 2; got {self.arity}")

    @property
    def advances(self) -> int:
        """Untraced steps inside the window, by recursion over the sizes of nodes."""
        return _cost(self.steps, self.arity)[0]

    @property
    def peak_states(self) -> dict[Tier, int]:
        """States kept at once."""
        return {Tier.DEVICE: _cost(self.steps, self.arity)[1]}

    def within(self, start: int, stop: int, turn: bool) -> Iterator[Action]:
        """Reverse [start, stop) by a tree of its own: its peak is no larger, since peaks grow with the size."""
        yield Save(start)
        yield from self._node(start, stop, turn)

    def _node(self, start: int, stop: int, turn: bool) -> Iterator[Action]:
        """Reverse [start, stop), whose first state is kept and is the working state, and free it."""
        if stop - start == 1:
            if turn:
                yield Turn(start)
            yield Reverse(start)
            yield Free(start)
            return
        starts = _children(start, stop, self.arity)
        for child, following in pairwise(starts):
            yield Advance(child, following)
            yield Save(following)
        yield from self._node(starts[-1], stop, turn)
        for child, following in reversed(list(pairwise(starts))):
            yield Load(child)
            yield from self._node(child, following, False)


def kary(start: int, stop: int, arity: int) -> Plan:
    """The paper's lazy k-ary tree over the window."""
    return Kary("kary", start, stop, arity)


def _children(start: int, stop: int, arity: int) -> list[int]:
    """Where the children of a node start."""
    children = min(arity, stop - start)
    size, longer = divmod(stop - start, children)
    return [start + i * size + min(i, longer) for i in range(children)]


@lru_cache(maxsize=4096)
def _cost(steps: int, arity: int) -> tuple[int, int]:
    """(advances, peak states) of a node. The nodes of a level have two sizes at most, so this takes log_k T calls."""
    if steps == 1:
        return 0, 1
    children = min(arity, steps)
    size, longer = divmod(steps, children)
    advances, peak = _cost(size, arity)
    advances, peak = steps - size + (children - longer) * advances, children - 1 + peak
    if longer:
        # Those before the child that is being reversed are kept; the longer children come first.
        of_longer, peak_of_longer = _cost(size + 1, arity)
        advances, peak = advances + longer * of_longer, max(peak, longer - 1 + peak_of_longer)
    return advances, peak
