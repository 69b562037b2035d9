"""The agent of a group: torch's elastic agent in a process of its own, since it wants a main thread and signals.

Ends when its standard input closes, which is the life of the task that started it; ranks end when it does.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tasks.ranks.group import JOB, KILLED, Job

LEASH, RENDEZVOUS = "leash", "rendezvous"
SECONDS_TO_END = 5
"""Between the signal that asks the other ranks to end and the one that ends them."""


def main(folder: Path) -> int:
    """Run the job in ``folder``; 0, KILLED where a rank was killed, or 1 where one failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the task's, which lets go of the leash
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the task says what happened
    threading.Thread(target=_obey, daemon=True, name="leash").start()
    held: list[Connection] = []
    listener = Listener(str(folder / LEASH), family="AF_UNIX")
    threading.Thread(target=_hold, args=(listener, held), daemon=True, name="ranks").start()
    job: Job = pickle.loads((folder / JOB).read_bytes())
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(job.devices),
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint=str(folder / RENDEZVOUS),
        rdzv_configs={"store_type": "file"},
        max_restarts=0,
        monitor_interval=0.2,
        local_addr="127.0.0.1",
        shutdown_timeout=SECONDS_TO_END,
        signals_to_handle="SIGTERM,SIGHUP",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "tasks.ranks.member", str(folder))
    except ChildFailedError as error:
        killed = any(one.exitcode == -signal.SIGKILL for one in error.failures.values())
        return KILLED if killed else 1
    return 0


def _obey() -> None:
    """Exit, and the ranks with this process, when the task has ended or given up."""
    sys.stdin.read()
    os._exit(1)


def _hold(listener: Listener, held: list[Connection]) -> None:
    """Keep the other end of each rank's leash."""
    while True:
        held.append(listener.accept())


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status)  # its threads wait for ever
