"""How benchmarks.gpu runs a section: within its own time, and a failure of one leaves the others alone.

A section is a generator of findings. What it found before it failed or ran out of time is kept. Sections are imported
when they run, so that a package that is missing removes only those that need it.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu import meter as gpu_meter

THREADS = {"cpu": 2, "cuda": 8}


class Finding(NamedTuple):
    """A line of the table, and figures of the JSON; a figure that is a dictionary is merged into one of that name."""

    text: str
    figures: dict[str, Any] = {}  # noqa: RUF012  # never changed


@dataclass
class Bench:
    """What sections are given. ``found``: figures of the sections before."""

    device: torch.device
    quick: bool
    disk: Path
    found: dict[str, Any] = field(default_factory=dict)

    def needed(self, *names: str) -> tuple[Any, ...]:
        """Figures of earlier sections.

        Raises:
            LeftOut: one of them is not there.
        """
        missing = [name for name in names if self.found.get(name) is None]
        if missing:
            raise LeftOut(f"needs {', '.join(missing)} of an earlier section")
        return tuple(self.found[name] for name in names)


class LeftOut(Exception):
    """A section does not apply here; the message says why."""


class OutOfTime(Exception):
    """A section took longer than its time."""


@dataclass(frozen=True)
class Section:
    """``place``: module and function, as in ``benchmarks.gpu.speed:float32``; ``seconds``: its time."""

    name: str
    place: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How a section ended: ok, left out or failed, and why."""

    name: str
    end: str
    seconds: float
    reason: str = ""


def run(section: Section, bench: Bench, left: float) -> Outcome:
    """Run a section within its time, at most ``left`` seconds; print and keep what it finds."""
    began = time.perf_counter()
    end, reason = "ok", ""
    print(f"-- {section.name}", flush=True)
    try:
        _run(section, bench, min(section.seconds, left))
    except LeftOut as why:
        end, reason = "left out", str(why)
    except ImportError as error:
        end, reason = "left out", f"a package is missing: {error}"
    except Exception as error:
        traceback.print_exc()
        end, reason = "failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    gpu_meter.release(bench.device)
    if reason:
        print(f"   {end}: {reason}", flush=True)
    return Outcome(section.name, end, time.perf_counter() - began, reason)


def _run(section: Section, bench: Bench, seconds: float) -> None:
    if seconds <= 0:
        raise LeftOut("no time is left; see --budget")
    from mgd_core.training.determinism import deterministic

    with _alarm(seconds), deterministic(THREADS[bench.device.type]):
        for text, figures in _loaded(section.place)(bench):
            print(f"   {text}", flush=True)
            for name, value in figures.items():
                merged = isinstance(value, dict) and isinstance(bench.found.get(name), dict)
                bench.found[name] = bench.found[name] | value if merged else value


def _loaded(place: str) -> Callable[[Bench], Iterator[Finding]]:
    module, function = place.split(":")
    loaded: Callable[[Bench], Iterator[Finding]] = getattr(import_module(module), function)
    return loaded


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Interrupt the block after ``seconds``, at the first instruction of Python after that."""

    def ring(*_: object) -> None:
        raise OutOfTime(f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
