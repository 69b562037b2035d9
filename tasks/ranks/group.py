"""A function run by a group of ranks, bound to the life of whoever asked for it.

Three generations: a task starts an agent (tasks.ranks.agent), which has torch's elastic agent start and watch the ranks
(tasks.ranks.member). Each generation holds the end of a pipe or socket of the one before and exits at once when that
closes, so whatever ends the task, SIGKILL included, leaves neither agent nor rank. A rank that dies ends the group; one
that was killed, or whose agent was, is no error of the work: the group starts again, and the work goes on from its own
records. Of errors, the first that a rank met is raised here.

On one host; ranks and agent agree through files in a scratch directory, and gloo listens on the loopback only. What the
first rank says of its progress is passed on.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mgd_core.errors import UserError
from tasks.files.processes import WorkerDied
from tasks.files.progress import announce, say

AGAIN = 3
"""Times that a group is started again after a kill."""
KILLED = 75
"""Status of an agent that lost a rank to a signal."""
JOB = "job.pickle"


class Job(NamedTuple):
    """What every rank of a group does: ``work`` ("module:function") of ``arguments`` and, by name, ``ranks``."""

    work: str
    arguments: tuple[Any, ...]
    devices: tuple[str, ...]
    """A device for each rank, as PyTorch calls it."""


def run_on_ranks(work: str, arguments: Sequence[Any], devices: Sequence[str]) -> None:
    """Run ``work`` ("module:function", of the installed program) on a rank for each of ``devices``.

    Raises:
        UserError: what a rank raised.
        WorkerDied: ranks were killed again and again.
    """
    for _ in range(1 + AGAIN):
        with tempfile.TemporaryDirectory(prefix="mgd-ranks-") as folder:
            Path(folder, JOB).write_bytes(pickle.dumps(Job(work, tuple(arguments), tuple(devices))))
            status = _agent(folder)
            if status == 0:
                return
            error = _first_error(Path(folder))
            if isinstance(error, UserError) or (error is not None and status != KILLED and status >= 0):
                raise error
        say(f"one of {len(devices)} ranks, or their agent, was killed: the group starts again from its last records")
    raise WorkerDied(
        f"a group of {len(devices)} ranks was killed {1 + AGAIN} times, by somebody or for want of memory (see dmesg). "
        "Give the same command again, with fewer ranks (runtime.ranks) if memory was short: finished work is kept"
    )


def _agent(folder: str) -> int:
    """Status of an agent for the job in ``folder``; its standard input is the leash, its output the ranks' progress."""
    variables = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "tasks.ranks.agent", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True) as agent:
        assert agent.stdin is not None and agent.stdout is not None
        try:
            for line in agent.stdout:
                _told(line)
            return agent.wait()
        finally:
            agent.stdin.close()  # on an error here, Ctrl-C among them, the group ends


def _told(line: str) -> None:
    try:
        what, done, total = json.loads(line)
    except ValueError:
        print(line, end="", file=sys.stderr)  # of a library
    else:
        announce(what, done, total)


def _first_error(folder: Path) -> BaseException | None:
    """The error that a rank met first."""
    found = sorted(folder.glob("error-*"), key=lambda path: path.stat().st_mtime_ns)
    for path in found:
        error: BaseException = pickle.loads(path.read_bytes())
        return error
    return None
