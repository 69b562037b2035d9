"""The plan of two tiers: an even period of states on a slower tier, the binomial plan in memory between them.

The window is cut into stretches of equal length (to within one step). The state at each cut is written once to the
outer tier in the first sweep, read once when its stretch is to be reversed, and freed when it is; the stretch is
reversed by the binomial plan in ``slots`` device states. The last stretch follows the first sweep directly, so its
state is written, for a run that is cut off there, but not read. With n stretches of p or p + 1 steps

    advances = (steps - length of the last) + sum over stretches of the binomial plan's advances.

Against one binomial plan over both tiers (Stumm & Walther 2009) it recomputes more but moves each state once, in a
known order, so that writes overlap the sweep and reads can be prefetched. Not here: a longer last stretch, whose states
are at hand anyway; it would save up to 0.04 T advances at T = 3125.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mgd_core.plans.actions import Action, Plan, Tier
from mgd_core.plans.plan import check_slots, least_advances, revolve


@dataclass(frozen=True)
class Segments(Plan):
    """``stretches`` states on the tier ``outer``, at most ``slots`` on the device."""

    slots: int
    stretches: int
    outer: Tier = Tier.DISK

    def __post_init__(self) -> None:
        super().__post_init__()
        check_slots(self.slots)
        if not 1 <= self.stretches <= self.steps:
            raise ValueError(f"{self.steps} steps cannot be cut into {self.stretches} stretches of a step or more")
        if self.outer is Tier.DEVICE:
            raise ValueError("the outer states of a segments plan belong on Tier.HOST or Tier.DISK, not on the device")

    @property
    def period(self) -> int:
        """Steps of the longest stretches; the last is one of them."""
        return -(-self.steps // self.stretches)

    @property
    def advances(self) -> int:
        """Untraced steps inside the window, by the closed form."""
        size, longer = divmod(self.steps, self.stretches)
        shorter = self.stretches - longer
        inside = longer * least_advances(size + 1, self.slots) + shorter * least_advances(size, self.slots)
        return self.steps - self.period + inside

    @property
    def peak_states(self) -> dict[Tier, int]:
        """States kept at once on the device and on the outer tier."""
        return {Tier.DEVICE: min(self.slots, self.period), self.outer: self.stretches}

    @property
    def transfers(self) -> dict[Tier, tuple[int, int]]:
        """Saves and loads of the outer tier."""
        return {self.outer: (self.stretches, self.stretches - 1)}

    def next_cut(self, step: int) -> int:
        """The first cut beyond ``step``, or ``stop``. The i-th cut is start + floor(i steps / stretches)."""
        i = -(-(step + 1 - self.start) * self.stretches // self.steps)
        return self.start + i * self.steps // self.stretches

    def within(self, start: int, stop: int, turn: bool) -> Iterator[Action]:
        """Reverse [start, stop) with all device slots."""
        return revolve(start, stop, self.slots, turn)


def segments(
    start: int,
    stop: int,
    slots: int,
    *,
    disk_states: int | None = None,
    period: int | None = None,
    tier: Tier = Tier.DISK,
) -> Plan:
    """At most ``slots`` states on the device and an even period of states on ``tier``.

    Give either ``disk_states``, the most states on ``tier``, or ``period``, the most steps between two of them.

    Raises:
        ValueError: both or none of them, or one below 1, or a window or a number of slots that cannot be.
    """
    if (disk_states is None) == (period is None):
        raise ValueError(
            f"a segments plan takes disk_states or period, one of them; got disk_states={disk_states}, period={period}"
        )
    least = disk_states if period is None else period
    assert least is not None
    if least < 1:
        name = "disk_states" if period is None else "period"
        raise ValueError(f"a segments plan needs {name} of at least 1; got {least}")
    steps = max(1, stop - start)  # an impossible window is refused by the plan
    stretches = min(least, steps) if period is None else -(-steps // period)
    return Segments("segments", start, stop, slots, stretches, tier)
