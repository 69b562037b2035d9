"""Do damaged tars, Parquet footers, JSON and numpy files ever hang or crash a reader, or lose samples in silence?

`python -m benchmarks.fuzz --minutes 10` mutates files of each kind at seeded random (`testing.fuzzing`) in worker
processes, which say before each case what it is: a worker that dies names the case that killed it, one that says
nothing for `STUCK` seconds is ended and its case counted as a hang, and the next worker goes on after it. Every case
can be run again: `testing.fuzzing.fuzz(target, seed, directory)`. Without `--minutes`, or with `--quick`, it runs for
half a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._envelope import emit
from testing.fuzzing import INTACT, REFUSED, TARGETS, SilentLoss, fuzz

QUICK = 0.5  # minutes
STUCK = 60.0  # seconds without a word that make a hang; a case takes milliseconds
SEEDS = 1 << 40  # seeds of one run's start: runs with other starts meet other cases


def main() -> None:
    """Fuzz all targets in turn and print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a minute, the default")
    parser.add_argument("--minutes", type=float, default=QUICK, help="how long, in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which cases: runs with other seeds share none")
    options = parser.parse_args()
    minutes = QUICK if options.quick else options.minutes
    counts: dict[str, Counter[str]] = {}
    bad: list[str] = []
    print(f"{'target':<12} {'cases':>9} {INTACT:>9} {REFUSED:>9} {'silent':>7} {'crashes':>8} {'hangs':>6}", flush=True)
    for target in TARGETS:
        counts[target] = fuzz_target(target, options.seed * SEEDS, 60 * minutes / len(TARGETS), bad)
        one = counts[target]
        shown = "".join(
            f"{one[k]:>{w},}" for k, w in ((INTACT, 10), (REFUSED, 10), ("silent", 8), ("crashes", 9), ("hangs", 7))
        )
        print(f"{target:<12} {sum(one.values()):>9,}{shown}", flush=True)
    for line in bad[:20]:
        print(line)
    total = sum(counts.values(), Counter[str]())
    emit("fuzz", _figures(total, counts, bad, minutes, options.seed))


def fuzz_target(target: str, seed: int, seconds: float, bad: list[str]) -> Counter[str]:
    """Cases of a target from `seed` on for some seconds; what went wrong is added to `bad`."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seed = _run_worker(target, seed, end, counts, bad) + 1
    return counts


def _run_worker(target: str, seed: int, end: float, counts: Counter[str], bad: list[str]) -> int:
    """Run a worker until the time is over or it breaks; returns the last seed that it began."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(target, seed, end, theirs), daemon=True)
    worker.start()
    theirs.close()
    while True:
        if not ours.poll(STUCK):
            worker.kill()
            counts["hangs"] += 1
            bad.append(f"{target} seed {seed}: no word for {STUCK:g} s")
            break
        try:
            word = ours.recv()
        except EOFError:
            worker.join()
            if worker.exitcode:
                counts["crashes"] += 1
                bad.append(f"{target} seed {seed}: the worker died with status {worker.exitcode}")
            break
        if isinstance(word, int):
            seed = word
        else:
            counts[word[0]] += 1
            bad += [f"{target} seed {seed}: {word[0]}: {word[1]}"] if word[1] else []
    worker.join()
    return seed


def _work(target: str, seed: int, end: float, theirs: Connection) -> None:
    """One case after the other: its seed first, then how it ended."""
    with tempfile.TemporaryDirectory(prefix="mgd-fuzz-") as scratch:
        while True:
            theirs.send(seed)
            theirs.send(_case(target, seed, Path(scratch)))
            seed += 1
            if time.monotonic() > end:
                return


def _case(target: str, seed: int, scratch: Path) -> tuple[str, str]:
    try:
        return fuzz(target, seed, scratch), ""
    except SilentLoss as loss:
        return "silent", str(loss)
    except Exception as error:
        return "crashes", f"{type(error).__name__}: {error}"


def _figures(
    total: Counter[str], counts: dict[str, Counter[str]], bad: list[str], minutes: float, seed: int
) -> dict[str, Any]:
    named = {"cases": sum(total.values())} | {k: total[k] for k in (INTACT, REFUSED, "silent", "crashes", "hangs")}
    by_target = {target: dict(one) for target, one in counts.items()}
    return {"minutes": minutes, "seed": seed, **named, "by_target": by_target, "bad": bad[:20]}


if __name__ == "__main__":
    main()
