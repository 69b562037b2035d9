"""Which of the paper's trees a number of slots has room for."""

from __future__ import annotations

from mgd_core.plans.actions import Tier
from mgd_core.plans.kary import kary


def best_arity(steps: int, slots: int) -> int:
    """The arity of fewest advances among the trees that fit in ``slots`` states.

    Raises:
        ValueError: no tree fits.
    """
    least = min(_peak(steps, k) for k in range(2, max(2, _peak(steps, 2)) + 1))  # it keeps k states or more
    if slots < least:
        raise ValueError(f"no k-ary tree over {steps} steps fits in {slots} slots, the least is {least}: use binomial")
    fitting = (k for k in range(2, max(2, min(steps, slots)) + 1) if _peak(steps, k) <= slots)
    return min(fitting, key=lambda k: kary(0, steps, k).advances)


def _peak(steps: int, arity: int) -> int:
    return kary(0, steps, arity).peak_states[Tier.DEVICE]
