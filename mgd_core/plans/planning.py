"""Which plan is cheapest within given memory and disk, and what it will cost.

``auto`` tries the plans that fit: every state on the device; the binomial plan in all the device's slots (each slot
more makes it cheaper, so fewer need no trial); and, for host memory and disk in turn, segments of every period with the
binomial plan inside. A plan's seconds, in the units measured, are those of

    the steps before the window + the first sweep + what is recomputed + the reverse steps,

where transfers run beside the compute: the first sweep lasts as long as its steps or its saves, whichever is longer,
and the reverse sweep as its steps or its loads. The trial costs milliseconds: about 2 sqrt(T) periods for each tier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite

from mgd_core.plans.actions import Plan, Tier
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.segments import segments


@dataclass(frozen=True)
class Rates:
    """Measured seconds: of a training step, of a reverse step, of a save and a load of one state for each slow tier.

    ``overlap``: transfers run beside the compute. False where they hold it up, as on a CPU whose cores are all busy.
    """

    step: float
    reverse: float
    save: Mapping[Tier, float] = field(default_factory=dict)
    load: Mapping[Tier, float] = field(default_factory=dict)
    overlap: bool = True

    def __post_init__(self) -> None:
        measured = {"step": self.step, "reverse": self.reverse}
        measured |= {f"save to {tier}": seconds for tier, seconds in self.save.items()}
        measured |= {f"load from {tier}": seconds for tier, seconds in self.load.items()}
        for name, seconds in measured.items():
            if not (isfinite(seconds) and seconds >= 0):
                raise ValueError(f"the seconds of a {name} must be finite and not negative; got {seconds}")


@dataclass(frozen=True)
class Forecast:
    """A plan, its seconds from the first step of the training on, and the bytes of its kept states for each tier."""

    plan: Plan
    seconds: float
    bytes: dict[Tier, int]

    def __str__(self) -> str:
        plan, again = self.plan, self.plan.advances - (self.plan.steps - 1)
        states = ", ".join(
            f"{count} states ({self.bytes[tier] / 2**20:,.1f} MiB) on {tier}"
            for tier, count in plan.peak_states.items()
        )
        return (
            f"{plan.name} plan over steps {plan.start} to {plan.stop - 1}: {again} steps recomputed "
            f"({again / plan.steps:.2f} of the window), {states}, about {self.seconds:,.1f} s"
        )


def auto(start: int, stop: int, state_bytes: int, budgets: Mapping[Tier, int], rates: Rates) -> Forecast:
    """The cheapest plan of the window [start, stop) whose kept states fit in ``budgets``, bytes for each tier.

    A tier without a budget is not used. The budgets are for kept states alone: the working state, the adjoint, what a
    step needs, and states on their way to a tier come on top. Of plans that take the same time, the one that keeps
    least on slow tiers, then on the device.

    Raises:
        ValueError: an impossible window, size or budget; no room for one state on the device; no rates for a tier.
    """
    capacity = _capacity(state_bytes, budgets)
    _check_rates(capacity, rates)
    return min((forecast(plan, state_bytes, rates) for plan in candidates(start, stop, capacity)), key=_preference)


def candidates(start: int, stop: int, capacity: Mapping[Tier, int]) -> Iterator[Plan]:
    """Plans that keep at most ``capacity`` states on each tier; the cheapest of all is among them."""
    slots, steps = capacity[Tier.DEVICE], stop - start
    if slots >= steps:
        yield keep_all(start, stop)
        return  # nothing is recomputed and nothing moved
    yield binomial(start, stop, slots)
    for tier in (Tier.HOST, Tier.DISK):
        most = min(capacity.get(tier, 0), steps)
        for stretches in sorted({-(-steps // period) for period in _periods(steps)} | {most}):
            if 1 < stretches <= most:
                yield segments(start, stop, slots, disk_states=stretches, tier=tier)


def forecast(plan: Plan, state_bytes: int, rates: Rates) -> Forecast:
    """What ``plan`` will cost."""
    saves = sum(count * rates.save[tier] for tier, (count, _) in plan.transfers.items())
    loads = sum(count * rates.load[tier] for tier, (_, count) in plan.transfers.items())
    sweep = plan.steps * rates.step
    reverse = (plan.advances - (plan.steps - 1)) * rates.step + plan.steps * rates.reverse
    window = max(sweep, saves) + max(reverse, loads) if rates.overlap else sweep + saves + reverse + loads
    peaks = {tier: count * state_bytes for tier, count in plan.peak_states.items()}
    return Forecast(plan, plan.start * rates.step + window, peaks)


def _periods(steps: int) -> list[int]:
    """One period for every number of stretches that an even period can cut ``steps`` into."""
    found, period = [], 1
    while period < steps:
        found.append(period)
        stretches = -(-steps // period)
        period = max(period + 1, -(-steps // (stretches - 1)))
    return found


def _preference(option: Forecast) -> tuple[float, int, int, int]:
    kept = option.plan.peak_states
    return option.seconds, kept.get(Tier.DISK, 0), kept.get(Tier.HOST, 0), kept.get(Tier.DEVICE, 0)


def _capacity(state_bytes: int, budgets: Mapping[Tier, int]) -> dict[Tier, int]:
    """States that fit on each tier."""
    if state_bytes < 1:
        raise ValueError(f"a state has at least one byte; got state_bytes={state_bytes}")
    for tier, budget in budgets.items():
        if budget < 0:
            raise ValueError(f"the budget of {tier} is negative: {budget} bytes")
    device = budgets.get(Tier.DEVICE, 0)
    if device < state_bytes:
        raise ValueError(
            f"the device budget of {device} bytes holds no state of {state_bytes} bytes, and every plan keeps one: "
            f"raise it to {state_bytes} bytes or more"
        )
    return {tier: budget // state_bytes for tier, budget in budgets.items()}


def _check_rates(capacity: Mapping[Tier, int], rates: Rates) -> None:
    for tier, states in capacity.items():
        if tier is not Tier.DEVICE and states and (tier not in rates.save or tier not in rates.load):
            raise ValueError(
                f"{tier} has a budget of {states} states but no measured seconds of a save and a load: measure them, "
                "or give it no budget"
            )
