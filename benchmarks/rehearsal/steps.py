"""Steps of a rehearsal: each one is done and checked, and ends as a row, whatever happens."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "failed", "not run"]


class Fault(Exception):
    """What a step made is not what it should have made."""


class NotRun(Exception):
    """A step cannot be run here; says why."""


@dataclass(frozen=True)
class Step:
    """A row: how a step ended, seconds, and a line on what was checked, or on what went wrong."""

    name: str
    status: Status
    seconds: float
    told: str
    official: bool = False


@dataclass
class Steps:
    """The rows so far; each is printed when its step ends."""

    done: list[Step] = field(default_factory=list)

    def take(self, name: str, work: Callable[[], str], after: Sequence[Step] = (), official: bool = False) -> Step:
        """Do a step, unless one that it needs did not end well; ``work`` tells what it checked."""
        began, status = time.monotonic(), "ok"
        stopped = [one for one in after if one.status != "ok"]
        try:
            if stopped:
                raise NotRun(f"needs '{stopped[0].name}', which {stopped[0].status.replace('not run', 'was not run')}")
            told = work()
        except NotRun as reason:
            status, told = "not run", str(reason)
        except Fault as fault:
            status, told = "failed", str(fault)
        except Exception:
            status, told = "failed", traceback.format_exc()
        step = Step(name, status, time.monotonic() - began, told, official)  # type: ignore[arg-type]
        self.done.append(step)
        print(row(step), flush=True)
        return step

    def count(self, status: Status, official: bool = False) -> int:
        """Steps that ended so; ``official``: only those of DataComp's own scripts."""
        return sum(one.status == status and (one.official or not official) for one in self.done)


def row(step: Step) -> str:
    """A step's line."""
    return f"{step.status:<8} {step.seconds:>7.1f} s  {step.name:<44} {step.told}"


def check(holds: bool, told: str) -> None:
    """Raise Fault where something does not hold."""
    if not holds:
        raise Fault(told)


def same(what: str, found: object, wanted: object) -> None:
    """Raise Fault where two things differ."""
    check(found == wanted, f"{what}: {str(found)[:300]}, and not {str(wanted)[:300]}")
