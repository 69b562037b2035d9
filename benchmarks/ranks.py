"""Several ranks against one process: the same numbers, a share of the states, what it costs, what it sends, and kills.

`python -m benchmarks.ranks` trains and differentiates over W gloo processes of this machine, one thread each:

* `max_rel_error`: largest relative difference from one process of anything that a traversal finds (phi, losses, final
  state, adjoint, sums of weights, rates and weight decays, gamma, scores of a probe), float64, over the cases of
  testing.ranked and W = 1 to 4;  `same_w_bits`: elements that differ when the same is run again on as many ranks, or
  between ranks;  `direct_once`: the part of theta that no row goes through counts once;
* `state_share`: bytes of a kept state on a rank, times W, over those of one process;
* `overhead`: CPU seconds of two ranks over those of one process, a training step and a reverse step of the demo's CLIP
  at batch 256, whole batches (a rank keeps its graph, as one process does);
* `bytes_sent_over_formula`: bytes that a rank's collectives sent (`counted`), and that its process wrote to its sockets
  by the kernel's count (`written`), over mgd_core.plans.traffic's formula;
* `kills`, `wrong_bytes`, `left`: SIGKILLs of a rank, the agent or the task of a group that trains, at random instants;
  trainings that then ended with other bytes, and processes that were still there after `SECONDS_TO_END` seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks._envelope import emit
from benchmarks.reverse_step import BATCH, build
from mgd_core.engine.reverse import reverse_step
from mgd_core.plans.traffic import Traffic
from mgd_core.ranks.ranks import ALONE, Ranks
from mgd_core.training.determinism import deterministic
from mgd_core.training.optimizers import State
from mgd_core.training.spread import spread
from testing.rank_groups import on_ranks, processes
from testing.ranked import CASES, bits_apart, direct, twice, worst

MOST = 4  # ranks
KILLS, QUICK_KILLS = 12, 3
REPEATS, QUICK_REPEATS = 6, 2
PAUSE = 0.1  # seconds that a training to be killed sleeps at each step
SECONDS_TO_END = 30
PATIENCE = 1800.0


class Costs(NamedTuple):
    """CPU seconds of training steps and of reverse steps, and bytes sent in one of each: counted, and written."""

    step: float
    reverse: float
    counted: tuple[int, int]
    written: tuple[int, int]


def main() -> None:
    """Print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two ranks, two cases, fewer repeats and kills")
    parser.add_argument("--part", choices=("exact", "costs", "kill"), help="one part alone")
    options = parser.parse_args()
    parts: dict[str, Callable[[bool], dict[str, Any]]] = {"exact": exact, "costs": costs, "kill": kill}
    figures: dict[str, Any] = {}
    for name, part in parts.items():
        if options.part in (None, name):
            figures |= part(options.quick)
    emit("ranks", figures)


def exact(quick: bool) -> dict[str, Any]:
    """Every case on every number of ranks."""
    error, bits, share, once = 0.0, 0, 0.0, True
    for name in list(CASES)[: 2 if quick else None]:
        with tempfile.TemporaryDirectory() as place:
            expected = twice(ALONE, name, Path(place, "alone"))[0]
        for count in (2,) if quick else range(1, MOST + 1):
            with tempfile.TemporaryDirectory() as place:
                found = on_ranks(count, twice, name, Path(place))
            first = found[0][0]
            apart = worst(first, expected)
            differ = sum(bits_apart(first, one) for pair in found for one in pair)
            held = max(one.state_bytes for one, _ in found) * count / expected.state_bytes
            print(f"{name:<30}{count} ranks: {apart:.1e} off, {differ} elements differ, share {held:.3f}", flush=True)
            error, bits, share = max(error, apart), bits + differ, max(share, held)
    for count in range(2, 3 if quick else MOST + 1):
        for there in on_ranks(count, direct):
            once &= all(torch.allclose(a, b, rtol=1e-12, atol=0) for a, b in zip(there, direct(ALONE), strict=True))
    return {"max_rel_error": error, "same_w_bits": bits, "direct_once": once, "state_share": share}


def costs(quick: bool) -> dict[str, Any]:
    """One process and two ranks, in turn."""
    repeats = QUICK_REPEATS if quick else REPEATS
    alone: list[Costs] = on_ranks(1, measured, repeats)
    two: list[Costs] = on_ranks(2, measured, repeats)
    both = [sum(one.step + one.reverse for one in some) for some in (alone, two)]
    learner, _ = build("fashion")
    traffic = Traffic(2, learner.layout.length, BATCH, 2 * 64 * 4)
    expected = traffic.step, traffic.reverse
    counted, written = (
        max(max(a / b for a, b in zip(sent, expected, strict=True)) for sent in kind)
        for kind in ([one.counted for one in two], [one.written for one in two])
    )
    for name, some in (("one process", alone), ("two ranks", two)):
        step, reverse = (sum(getattr(one, kind) for one in some) / repeats for kind in ("step", "reverse"))
        print(f"{name:<12} CPU {1e3 * step:.0f} ms a step, {1e3 * reverse:.0f} ms a reverse step", flush=True)
    print(f"bytes by formula {expected}, counted {two[0].counted}, written {two[0].written}")
    return {
        "overhead": both[1] / both[0],
        "bytes_sent_over_formula": counted,
        "bytes_written_over_formula": written,
        "cpu_seconds": {name: [one[:2] for one in some] for name, some in (("alone", alone), ("two", two))},
    }


def measured(ranks: Ranks, repeats: int) -> Costs:
    """Training steps and reverse steps of the demo's CLIP, in this rank's process."""
    with deterministic(1):
        whole, first = build("fashion")
        learner, state = spread(whole, first, ranks)
        adjoint = State(torch.ones_like(state.theta), tuple(torch.zeros_like(m) for m in state.moments))
        before, after, last = state, learner.step(state, 0)[0], 0
        reverse_step(learner, before, after, adjoint, 0, learner.batches(0))
        spent, counted, written = [0.0, 0.0], [0, 0], [0, 0]
        for t in (i % learner.steps for i in range(1, repeats + 1)):
            calls = (  # each at a state whose parameters are not at hand
                lambda: learner.step(after, t)[0],  # noqa: B023
                lambda: reverse_step(learner, before, after, adjoint, last, learner.batches(last)),  # noqa: B023
            )
            made: list[Any] = []
            for i, call in enumerate(calls):
                sent, wrote, began = ranks.sent, _written(), time.process_time()
                made.append(call())
                spent[i] += time.process_time() - began
                counted[i], written[i] = ranks.sent - sent, _written() - wrote
            before, after, last = after, made[0], t
        return Costs(spent[0], spent[1], (counted[0], counted[1]), (written[0], written[1]))


def _written() -> int:
    """Bytes that this process has written, to files and sockets."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


def kill(quick: bool) -> dict[str, Any]:
    """Groups that lose a process at a random instant."""
    draw, count = random.Random(0), QUICK_KILLS if quick else KILLS
    with tempfile.TemporaryDirectory() as place:
        expected, seconds = _trained(Path(place), None, draw)
    print(f"uninterrupted: {seconds:.1f} s", flush=True)
    wrong = left = 0
    for number in range(count):
        victim = ("rank", "agent", "task")[number % 3]
        with tempfile.TemporaryDirectory() as place:
            digest, seconds = _trained(Path(place), victim, draw)
            remaining = _remaining(place)
        wrong, left = wrong + (digest != expected), left + remaining
        said = "same bytes" if digest == expected else "OTHER BYTES"
        print(f"{victim} killed: {said}, {seconds:.1f} s in all, {remaining} processes left", flush=True)
    return {"kills": count, "wrong_bytes": wrong, "left": left}


TASK = """
import sys
from pathlib import Path
from tasks.ranks.group import run_on_ranks
run_on_ranks("testing.slow_training:train", (Path(sys.argv[1]), float(sys.argv[2])), ("cpu", "cpu"))
"""


def _trained(place: Path, victim: str | None, draw: random.Random) -> tuple[str, float]:
    """Digest of a training by two ranks of which ``victim`` is killed, and its seconds."""
    began, at = time.monotonic(), draw.randint(2, 12)
    task = _task(place)
    if victim is not None:
        _wait(lambda: _steps(place) >= at, task)
        groups = processes(str(place))
        chosen = {"task": [task.pid], "agent": groups["agent"], "rank": groups["member"]}[victim]
        os.kill(draw.choice(chosen), signal.SIGKILL)
        if victim == "task":
            task.wait()
            _gone([pid for kind in groups.values() for pid in kind])
            task = _task(place)
    if task.wait(PATIENCE) != 0:
        return f"the task ended with {task.returncode}", time.monotonic() - began
    return (place / "digest").read_text(), time.monotonic() - began


def _task(place: Path) -> subprocess.Popen[bytes]:
    variables = {**os.environ, "TMPDIR": str(place), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", TASK, str(place), str(PAUSE)], env=variables)


def _steps(place: Path) -> int:
    path = place / "progress"
    said = path.read_text() if path.exists() else ""
    return int(said or 0)


def _wait(ready: Callable[[], bool], task: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < until and task.poll() is None, "the training did not get anywhere"
        time.sleep(0.02)


def _gone(pids: list[int]) -> None:
    """Wait until processes have ended, as long as they may take."""
    until = time.monotonic() + SECONDS_TO_END
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)


def _remaining(place: str) -> int:
    found = [pid for pids in processes(place).values() for pid in pids]
    _gone(found)
    return sum(Path(f"/proc/{pid}").exists() for pid in found)


if __name__ == "__main__":
    main()
