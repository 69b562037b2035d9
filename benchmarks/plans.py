"""Do plans cost what they say? Advances and peak states of every plan: predicted, counted, and tabulated.

`python -m benchmarks.plans` compares, for each plan, its closed form or recursion with what a simulation of its actions
(`testing.simulator`, which refuses what no executor could do) counts, and with

* a dynamic programme over Griewank & Walther's recursion, for every T up to 3125 and every number of slots up to 128;
* the schedules of `checkpoint_schedules`, where it is installed;
* figures tabulated beforehand with other code: the binomial plan, k-ary trees, and segments at T = 3125.

The grid then takes every window of up to 100 steps with every slot count, arity and period, and stops traversals after
every action to go on from what the disk would keep. `mismatches` counts all disagreements and illegal traversals.
*Extra* is what is recomputed: advances - (T - 1), since the first sweep advances through all steps but the one that
turns. Milliseconds are those of iterating the whole plan.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from benchmarks._envelope import emit
from mgd_core.plans.actions import Plan, Tier
from mgd_core.plans.kary import kary
from mgd_core.plans.plan import binomial, keep_all, least_advances
from mgd_core.plans.segments import segments
from testing.arities import best_arity
from testing.simulator import IllegalActionError, Simulation, simulate

STEPS = 3125  # the paper's CIFAR-10 run
SLOTS = (16, 32, 64, 128)
# Beforehand, with other code: extra advances, or extra / T where a fraction is given to two decimals.
EXTRA = {16: 8236, 32: 5656, 64: 4040, 128: 2996}
KARY = {2: (12, 5.04), 4: (18, 3.43), 8: (27, 2.47), 16: (42, 1.79), 32: (65, 1.61)}
BEST_TREE = {16: (3, 4.10), 32: (11, 2.32), 64: (31, 1.63), 128: (97, 0.96)}
SEGMENTS = {(8, 56): 2.00, (16, 112): 1.35, (16, 256): 0.91}
ROUNDED = 0.006
GRID, QUICK_GRID = 100, 36
CUT_OFF, QUICK_CUT_OFF = 24, 10
QUICK_SLOTS = 32


def main() -> None:
    """Print the tables, then the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help=f"windows of up to {QUICK_GRID} steps, a programme of {QUICK_SLOTS} slots"
    )
    quick = parser.parse_args().quick
    mismatches: Counter[str] = Counter()
    extra = show_binomial(mismatches)
    show_kary(mismatches)
    show_segments(mismatches)
    programmed = compare_programme(QUICK_SLOTS if quick else max(SLOTS), mismatches)
    traversed = sum(check(plan, mismatches) for plan in grid(QUICK_GRID if quick else GRID))
    stopped = sum(cut_off(plan, mismatches) for plan in grid(QUICK_CUT_OFF if quick else CUT_OFF))
    total = mismatches.total()
    print(f"\n{programmed:,} values of the dynamic programme, {traversed:,} plans traversed, {stopped:,} cut off and")
    print(f"gone on with: {total} mismatches {dict(+mismatches) or ''}")
    figures = {"extra_3125": extra, "mismatches": total, "programmed": programmed, "plans": traversed}
    emit("plans", figures | {"cut_off": stopped, "library_compared": _library() is not None})


def show_binomial(mismatches: Counter[str]) -> dict[str, int]:
    """The binomial plan at T = 3125, by four ways; return the extra advances that the simulation counted."""
    print(f"binomial, T = {STEPS}: extra advances\n{'S':>4}{'counted':>9}{'predicted':>11}{'tabulated':>11}", end="")
    print(f"{'library':>9}{'peak':>6}{'extra/T':>9}{'ms':>8}")
    found = {}
    for slots in SLOTS:
        plan = binomial(0, STEPS, slots)
        done, ms, library = simulate(plan), _milliseconds(plan), _by_library(slots)
        counted = _extra(done.advances)
        mismatches["table"] += len({counted, _extra(plan.advances), EXTRA[slots], library or counted}) > 1
        mismatches["peak"] += not (done.peak == plan.peak_states == {Tier.DEVICE: slots})
        print(
            f"{slots:>4}{counted:>9}{_extra(plan.advances):>11}{EXTRA[slots]:>11}{library or 'missing':>9}"
            f"{done.peak[Tier.DEVICE]:>6}{counted / STEPS:>9.2f}{ms:>8.1f}"
        )
        found[str(slots)] = counted
    return found


def show_kary(mismatches: Counter[str]) -> None:
    """Trees of given arity, and the best tree in given slots, beside the binomial plan in as many."""
    print(f"\nk-ary tree, T = {STEPS}\n{'k':>4}{'peak':>6}{'tabulated':>11}{'extra/T':>9}", end="")
    print(f"{'tabulated':>11}{'binomial':>10}{'ms':>8}")
    best = {best_arity(STEPS, slots): (slots, extra) for slots, (_, extra) in BEST_TREE.items()}
    mismatches["arity"] += sum(best_arity(STEPS, slots) != k for slots, (k, _) in BEST_TREE.items())
    for k, (slots, tabulated) in sorted((KARY | best).items()):
        plan = kary(0, STEPS, k)
        done, ms = simulate(plan), _milliseconds(plan)
        peak, extra = done.peak[Tier.DEVICE], _extra(done.advances) / STEPS
        fits = peak == slots if k in KARY else peak <= slots
        mismatches["table"] += not fits or abs(extra - tabulated) > ROUNDED
        mismatches["predicted"] += (done.advances, done.peak) != (plan.advances, plan.peak_states)
        bound = f"{slots}" if k in KARY else f"<= {slots}"
        of_binomial = _extra(least_advances(STEPS, peak)) / STEPS
        print(f"{k:>4}{peak:>6}{bound:>11}{extra:>9.2f}{tabulated:>11.2f}{of_binomial:>10.2f}{ms:>8.1f}")


def show_segments(mismatches: Counter[str]) -> None:
    """An even period on disk, the binomial plan in memory."""
    print(f"\nsegments, T = {STEPS}\n{'slots':>6}{'disk':>6}{'extra/T':>9}{'tabulated':>11}", end="")
    print(f"{'writes':>8}{'reads':>7}{'ms':>8}")
    for (slots, states), tabulated in SEGMENTS.items():
        plan = segments(0, STEPS, slots, disk_states=states)
        done, ms = simulate(plan), _milliseconds(plan)
        extra, (writes, reads) = _extra(done.advances) / STEPS, done.transfers[Tier.DISK]
        mismatches["table"] += abs(extra - tabulated) > ROUNDED
        print(f"{slots:>6}{states:>6}{extra:>9.2f}{tabulated:>11.2f}{writes:>8}{reads:>7}{ms:>8.1f}")
        check(plan, mismatches)


def compare_programme(most: int, mismatches: Counter[str]) -> int:
    """The closed form against the dynamic programme, for all T up to 3125 and all slots up to ``most``."""
    best = np.arange(STEPS + 1, dtype=np.int64)
    best = best * (best - 1) // 2  # one slot: start over for each step
    for slots in range(1, most + 1):
        if slots > 1:
            best = _another_slot(best)
        closed = [least_advances(steps, slots) for steps in range(1, STEPS + 1)]
        mismatches["programme"] += int((best[1:] != np.array(closed)).sum())
    return STEPS * most


def _another_slot(fewer: np.ndarray) -> np.ndarray:
    """t(n, s) = min over m of m + t(n - m, s - 1) + t(m, s), from t(., s - 1)."""
    best = np.zeros_like(fewer)
    ahead = np.arange(len(fewer))
    for n in range(2, len(fewer)):
        best[n] = (ahead[1:n] + fewer[n - 1 : 0 : -1] + best[1:n]).min()
    return best


def grid(most: int) -> Iterator[Plan]:
    """Every plan over windows of up to ``most`` steps, some of which do not begin at 0."""
    for steps in range(1, most + 1):
        start = steps % 7
        stop = start + steps
        yield keep_all(start, stop)
        for number in range(1, steps + 1):
            yield binomial(start, stop, number)
            yield kary(start, stop, number + 1)
            yield segments(start, stop, 1 + steps % 5, period=number)
            yield segments(start, stop, 1 + number % 4, disk_states=number, tier=Tier.HOST)


def check(plan: Plan, mismatches: Counter[str]) -> int:
    """Traverse a plan; count what differs from its prediction."""
    try:
        done = simulate(plan)
    except IllegalActionError:
        mismatches["illegal"] += 1
    else:
        found = (done.advances, done.peak, done.transfers)
        mismatches["predicted"] += found != (plan.advances, plan.peak_states, plan.transfers)
    return 1


def cut_off(plan: Plan, mismatches: Counter[str]) -> int:
    """Stop after every action, and go on from what the disk keeps."""
    running, stopped = Simulation.of(plan), 0
    for action in plan:
        running.do(action)
        kept = running.kept[Tier.DISK] | {plan.start}
        try:
            if running.sweeping:
                assert running.working is not None
                rest = Simulation.forward_resumed(plan, kept, running.working)
                rest.run(plan.forward_resumed(running.working, kept))
            else:
                rest = Simulation.resumed(plan, kept, running.position)
                rest.run(plan.resumed(running.position, kept))
            mismatches["slots"] += rest.peak.get(Tier.DEVICE, 0) > plan.peak_states[Tier.DEVICE]
            mismatches["steps"] += running.reversals + rest.reversals != plan.steps
        except IllegalActionError:
            mismatches["illegal"] += 1
        stopped += 1
    return stopped


def _extra(advances: int) -> int:
    return advances - (STEPS - 1)


def _milliseconds(plan: Plan) -> float:
    began = time.perf_counter()
    for _ in plan:
        pass
    return 1e3 * (time.perf_counter() - began)


def _by_library(slots: int) -> int | None:
    """Extra advances of the library's schedule: its steps forward, less the ones it tapes."""
    library = _library()
    if library is None:
        return None
    schedule = library.MultistageCheckpointSchedule(STEPS, slots, 0)  # type: ignore[attr-defined]
    forward = (a for a in schedule if isinstance(a, library.Forward))  # type: ignore[attr-defined]
    return _extra(sum(a.n1 - a.n0 for a in forward) - STEPS)


def _library() -> object | None:
    try:
        return importlib.import_module("checkpoint_schedules")
    except ImportError:
        return None


if __name__ == "__main__":
    main()
