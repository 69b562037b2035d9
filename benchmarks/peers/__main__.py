"""Exact metagradients side by side: ours, naive unrolling, TorchOpt, bergson. Memory, CPU seconds, and who is right.

`python -m benchmarks.peers` differentiates one training (an MLP 64-640-640-10, batch 32, float32, T = 200 and 2000;
benchmarks.peers.problem) by every method, each run in a process of its own, three times in turn; about 50 minutes. It
needs the peers: `pip install -e '.[peers]'`, or `--python PATH` of an interpreter that has them and this project's
torch. A peer that cannot be imported is reported as missing, and ours is measured all the same.

* **peak**: resident MiB above the start; **CPU**: seconds of all threads, since cores are shared with other jobs;
* **advances**: training steps without a graph; **states**: held at once, on disk and in memory;
* **pairs**: bergson, and right after it ours with its budget of states: as many in memory alone (`ours_as_...`), and no
  more than it takes of memory and of disk (`ours_tiers_...`). `cpu_ratio_to_bergson` is the worst of all;
* **error**: relative distance of the metagradient to naive autograd's (for larger T: to ours), so that nobody is timed
  on other work; a method that is off by more than 1e-3 is in no pair.

Then two small trainings in float64 against naive autograd: weighted cross-entropy, and weighted InfoNCE, whose rows
are coupled: ours in chunks of 3 rows, bergson in 2 micro-batches (`grad_accum_steps=2`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks._envelope import emit
from benchmarks.peers.bergson import MODES, kept
from benchmarks.peers.problem import STATE_MIB
from benchmarks.peers.process import Case, Measurement, measure
from benchmarks.peers.results import Exactness, Results, Row, exactness_figures, show_exactness

STEPS, QUICK_STEPS = (200, 2000), (16, 40)
SLOTS, QUICK_SLOTS = (13, 26, 32), (13,)
REPEATS = 3
SHARE = 0.6  # of the memory or disk that is free, that one run may take
FAMILIES = ("bergson", "ours", "naive", "torchopt")  # in the order of quick's processes: longest first


@dataclass(frozen=True)
class Options:
    """What to run and where."""

    steps: tuple[int, ...]
    slots: tuple[int, ...]
    repeats: int
    python: str
    methods: tuple[str, ...] | None
    together: bool  # one process a family instead of one a run: quick, and less exact


def main() -> None:
    """Print the tables and the figures."""
    options = parsed()
    results, cases = Results(rows(options)), exactness_cases()
    if options.together:
        found = measure_together(results, cases, options.python)
    else:
        for repeat in range(options.repeats):
            measure_once(results, options.python, backwards=repeat % 2 == 1)
        found = dict(zip(cases, in_processes(list(cases.values()), options.python), strict=True))
    results.show()
    show_exactness(found)
    emit("peers", results.figures() | exactness_figures(found) | {"repeats": options.repeats})


def parsed() -> Options:
    """Options from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"T = {QUICK_STEPS}, once: under 45 s")
    parser.add_argument("--python", default=sys.executable, help="interpreter of all runs (default: this one)")
    parser.add_argument("--steps", type=int, nargs="+", help=f"lengths of training (default {STEPS})")
    parser.add_argument("--methods", nargs="+", help="only these rows of the table, by name (default all)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"runs of each (default {REPEATS})")
    given = parser.parse_args()
    if given.quick:
        return Options(QUICK_STEPS, QUICK_SLOTS, 1, given.python, given.methods, together=True)
    return Options(tuple(given.steps or STEPS), SLOTS, given.repeats, given.python, given.methods, together=False)


def rows(options: Options) -> list[Row]:
    """Methods by lengths of training, each of bergson's followed by ours with its budget of states."""
    found: list[Row] = []
    for steps in options.steps:
        skipped = None if steps == min(options.steps) else "memory grows with T"
        found += [Row(family, Case(family, steps=steps), skipped=skipped) for family in ("naive", "torchopt")]
        for mode in MODES:
            found += _bergson_and_ours(mode, steps)
        found += [Row(f"ours_{slots}", Case("ours", {"slots": slots}, steps=steps)) for slots in options.slots]
    names = {row.name for row in found}
    unknown = set(options.methods or ()) - names
    if unknown:
        raise SystemExit(f"unknown methods {sorted(unknown)}; there are {sorted(names)}")
    return [row for row in found if options.methods is None or row.name in options.methods]


def _bergson_and_ours(mode: str, steps: int) -> Iterator[Row]:
    """bergson, ours with as many states in memory alone, and ours within what bergson takes of memory and of disk."""
    budget = kept(mode, steps)
    on_disk = too_large("disk", budget.disk * STATE_MIB, shutil.disk_usage(tempfile.gettempdir()).free / 2**20)
    yield Row(f"bergson_{mode}", Case("bergson", {"mode": mode}, steps=steps), skipped=on_disk)
    in_memory = too_large("memory", budget.states * STATE_MIB, _available_mib())
    name, slots = ("ours_keep_all", {}) if mode == "all" else (f"ours_as_{mode}", {"slots": budget.states})
    yield Row(name, Case("ours", slots, steps=steps), f"bergson_{mode}", in_memory)
    tiers = {"slots": max(1, budget.memory), "disk_states": budget.disk}
    yield Row(f"ours_tiers_{mode}", Case("ours", tiers, steps=steps), f"bergson_{mode}", on_disk)


def too_large(what: str, need: float, free: float) -> str | None:
    """Why states of ``need`` MiB are not kept where ``free`` are left; None where they may be."""
    if need < SHARE * free:
        return None
    return f"its states need {need / 1024:.1f} GiB of {what}, {free / 1024:.1f} GiB are free"


def _available_mib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) / 1024


def measure_once(results: Results, python: str, backwards: bool) -> None:
    """One repeat of every row that can run; pairs stay neighbours whichever way the list is gone through."""
    for row in reversed(results.rows) if backwards else results.rows:
        if results.reason(row) is None:  # a peer found missing is not tried again
            (measurement,) = measure([row.case], python)
            results.add(row, measurement)
            print(f"  {row.name} T={row.case.steps}: {brief(measurement)}", flush=True)


def brief(m: Measurement) -> str:
    """A measurement in a few words, for whoever waits."""
    return m.reason or f"{m.cpu_s:.1f} s, {m.peak_mib:.0f} MiB"


def measure_together(results: Results, exactness: dict[tuple[str, str], Case], python: str) -> Exactness:
    """Everything once, a process for each family: importing a peer takes longer than a short training."""
    todo = [row for row in results.rows if results.reason(row) is None]
    found = in_processes([row.case for row in todo] + list(exactness.values()), python)
    for row, measurement in zip(todo, found, strict=False):
        results.add(row, measurement)
    return dict(zip(exactness, found[len(todo) :], strict=True))


def in_processes(cases: list[Case], python: str) -> list[Measurement]:
    """Measurements of ``cases``, those of a family in one process, two processes at a time."""
    groups = {family: [i for i, case in enumerate(cases) if case.family == family] for family in FAMILIES}
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda group: measure([cases[i] for i in group], python), groups.values())
    found = {
        i: m for group, answer in zip(groups.values(), answers, strict=True) for i, m in zip(group, answer, strict=True)
    }
    return [found[i] for i in range(len(cases))]


def exactness_cases() -> dict[tuple[str, str], Case]:
    """Float64 trainings of 40 steps by (problem, method); naive autograd is the reference."""

    def methods(problem: str) -> Iterator[tuple[str, Case]]:
        yield "naive", Case("naive", problem=problem)
        yield "ours", Case("ours", {"slots": 7}, problem)
        yield "ours_in_chunks", Case("ours", {"slots": 7, "chunk": 3}, problem)
        yield "torchopt", Case("torchopt", problem=problem)
        for mode in MODES:
            yield f"bergson_{mode}", Case("bergson", {"mode": mode}, problem)
        yield "bergson_accumulated", Case("bergson", {"mode": "sqrt", "parts": 2}, problem)
        uncounted = {"mode": "sqrt", "parts": 2, "rows_counted": False}
        yield "bergson_accumulated_uncounted", Case("bergson", uncounted, problem)

    return {(problem, name): case for problem in ("classifier", "two_towers") for name, case in methods(problem)}


if __name__ == "__main__":
    main()
