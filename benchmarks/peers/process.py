"""Measure one way to a metagradient in a process of its own: CPU seconds and peak resident memory above the start.

The process warms up on a short training, gives freed memory back to the system, resets the kernel's high-water mark of
its resident size (Linux: 5 into /proc/self/clear_refs), and runs. CPU seconds count all threads, system time included.
A peer that is missing or fails is an answer, not an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WARM_UP_STEPS = 5
NOISE = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # of a peer's imports
# Threads that wait for each other sleep (see benchmarks.reverse_step); one thread each, so that CPU seconds compare.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Case:
    """A family of methods with its settings, on a problem with so many steps."""

    family: str
    options: dict[str, Any] = field(default_factory=dict)
    problem: str = "mlp"
    steps: int = 40

    @property
    def key(self) -> str:
        """Equal for equal cases."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Measurement:
    """What a run gave and took; ``missing`` or ``failed`` says why there is nothing."""

    gradient: list[float] = field(default_factory=list)
    phi: float = float("nan")
    cpu_s: float = float("nan")
    peak_mib: float = float("nan")
    advances: int = 0
    states: int | None = None
    memory_states: int | None = None
    disk_states: int = 0
    disk_mib: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    missing: str | None = None
    failed: str | None = None

    @property
    def reason(self) -> str | None:
        """Why there is no figure; None where there is one."""
        return self.missing or self.failed


def measure(cases: list[Case], python: str = sys.executable, timeout: float = 3600) -> list[Measurement]:
    """Run ``cases`` one after the other in one new process of the interpreter ``python``."""
    environment = os.environ | NOISE | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
    command = [python, "-c", "from benchmarks.peers.process import work; work()"]
    request = json.dumps([asdict(case) for case in cases])
    try:
        done = subprocess.run(
            command, input=request, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return [Measurement(failed=f"did not end within {timeout:.0f} s")] * len(cases)
    found = [Measurement(**json.loads(line)) for line in done.stdout.splitlines()]
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    died = Measurement(failed=f"the process ended with code {done.returncode}: {last}")
    return found + [died] * (len(cases) - len(found))


def work() -> None:
    """In the new process: cases from standard input, a line of JSON for each to standard output."""
    cases = [Case(**case) for case in json.load(sys.stdin)]
    with contextlib.redirect_stdout(sys.stderr):  # peers print
        for case in cases:
            print(json.dumps(asdict(_guarded(case))), file=sys.__stdout__, flush=True)


def _guarded(case: Case) -> Measurement:
    try:
        return _run(case)
    except ImportError as error:
        return Measurement(missing=f"{type(error).__name__}: {error}")
    except Exception as error:
        traceback.print_exc()
        return Measurement(failed=f"{type(error).__name__}: {error}")


def _run(case: Case) -> Measurement:
    import torch

    torch.set_num_threads(1)
    # TorchOpt computes its bias correction in the default precision, whatever that of the parameters.
    torch.set_default_dtype(torch.float32 if case.problem == "mlp" else torch.float64)
    method, build = _method(case.family), _builder(case.problem)
    method(build(WARM_UP_STEPS), **case.options)
    problem = build(case.steps)
    _settle()
    start, began = _resident_mib("VmRSS"), _cpu_seconds()
    outcome = method(problem, **case.options)
    cpu, peak = _cpu_seconds() - began, _resident_mib("VmHWM") - start
    return Measurement(
        gradient=outcome.gradient.tolist(),
        phi=outcome.phi,
        cpu_s=cpu,
        peak_mib=peak,
        advances=outcome.advances,
        states=outcome.states,
        memory_states=outcome.memory_states,
        disk_states=outcome.disk_states,
        disk_mib=outcome.disk_bytes / 2**20,
        versions={name: metadata.version(name) for name in ("torch", *({case.family} - {"ours", "naive"}))},
    )


def _method(family: str) -> Callable[..., Any]:
    from benchmarks.peers import bergson as peer_bergson
    from benchmarks.peers import methods as peer_methods

    methods: dict[str, Callable[..., Any]] = {
        "ours": peer_methods.ours,
        "naive": peer_methods.naive,
        "torchopt": peer_methods.torchopt,
        "bergson": peer_bergson.bergson,
    }
    return methods[family]


def _builder(problem: str) -> Callable[[int], Any]:
    from benchmarks.peers import problem as peer_problem
    from mgd_core.training.optimizers import Adam
    from testing import problems

    if problem == "mlp":
        return peer_problem.mlp
    build = {"classifier": problems.classifier, "two_towers": problems.two_towers}[problem]
    return lambda steps: build(Adam(eps_root=1e-8), steps)


def _settle() -> None:
    """Drop what the warm-up left, and begin a new high-water mark."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _resident_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))) / 1024


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
