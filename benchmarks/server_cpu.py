"""What the local Prefect server costs beside a training task: CPU seconds a second, read from /proc.

Two servers run side by side, each with one client whose flow holds one long task (which sleeps, so that the
client takes nothing): ours, with the services of `flows.runtime.environment.LEAN_SERVICES`, and Prefect's
stock settings. Both without telemetry. Then the same clients run a batch of small tasks: CPU a task on the
server, and the growth of its database. Starting a server is counted apart: it is paid once a machine start.
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks._envelope import emit
from flows.runtime import ensure_server, server_status, stop_server
from flows.runtime.environment import LEAN_SERVICES

# Runs in a process of its own, as a user's command does; says when the long task begins and when it is over.
_CLIENT = """
import sys, time
from prefect import flow, task

@task
def train(seconds):
    print("training", flush=True)
    time.sleep(seconds)

@task
def shard(number):
    return number

@flow
def job(seconds, shards):
    train(seconds)
    print("trained", flush=True)
    for number in range(shards):
        shard(number)

job(float(sys.argv[1]), int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Cost:
    """One server's figures: seconds and CPU seconds, CPU seconds a second, bytes."""

    start_seconds: float
    start_cpu: float
    share: float
    cpu_per_task: float
    bytes_per_task: float
    resident_mib: float


def measure(home: Path, services: Mapping[str, str], seconds: float, shards: int) -> Cost:
    """Start a server for `home`, run the client against it, stop it."""
    began = time.monotonic()
    url = ensure_server(home, services=services)
    start_seconds = time.monotonic() - began
    pid = server_status(home).pid
    if pid is None:
        raise RuntimeError(f"the server of {home} is gone; see {home}/.prefect/server.log")
    start_cpu = cpu_seconds(pid)
    try:
        environment = os.environ | {"PREFECT_API_URL": url, "PREFECT_HOME": str(home / "client")}
        client = subprocess.Popen(
            [sys.executable, "-c", _CLIENT, str(seconds + 1), str(shards)],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        _expect(client, "training")
        time.sleep(0.5)  # the run's first states are being written
        share = _share(pid, seconds)
        _expect(client, "trained")
        cpu, size = cpu_seconds(pid), database_bytes(home)
        if client.wait() != 0:
            raise RuntimeError(f"the client of {home} failed with status {client.returncode}")
        time.sleep(3)  # the recorder is a moment behind
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        return Cost(
            start_seconds, start_cpu, share,
            (cpu_seconds(pid) - cpu) / shards, (database_bytes(home) - size) / shards, resident,
        )  # fmt: skip
    finally:
        stop_server(home)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def database_bytes(home: Path) -> int:
    """Bytes of the pages of the server's database, those still in its write-ahead log included."""
    with closing(sqlite3.connect(f"file:{home / '.prefect/prefect.db'}?mode=ro", uri=True)) as database:
        [(pages,)] = database.execute("PRAGMA page_count")
        [(page_bytes,)] = database.execute("PRAGMA page_size")
    return int(pages * page_bytes)


def _share(pid: int, seconds: float) -> float:
    began, cpu = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - cpu) / (time.monotonic() - began)


def _expect(client: "subprocess.Popen[str]", word: str) -> None:
    line = client.stdout.readline().strip() if client.stdout else ""
    if line != word:
        raise RuntimeError(f"the client said {line!r} instead of {word!r}")


def main() -> None:
    """Measure both servers at the same time, print the table and the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_cpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 s and 40 tasks instead of 60 s and 200")
    seconds, shards = (8.0, 40) if parser.parse_args().quick else (60.0, 200)
    with tempfile.TemporaryDirectory(prefix="mgd-bench-") as folder, ThreadPoolExecutor(2) as pool:
        ours, stock = (
            pool.submit(measure, Path(folder) / name, services, seconds, shards)
            for name, services in (("ours", LEAN_SERVICES), ("stock", {}))
        )
        costs = {"ours": ours.result(), "stock": stock.result()}
    print(f"{'':<30}{'ours':>10}{'stock':>10}")
    for label, key, factor in (
        ("start, new database, s", "start_seconds", 1),
        ("start, CPU s", "start_cpu", 1),
        ("beside one long task, CPU %", "share", 100),
        ("a task, CPU ms", "cpu_per_task", 1000),
        ("a task, database kB", "bytes_per_task", 1e-3),
        ("resident, MiB", "resident_mib", 1),
    ):
        print(f"{label:<30}" + "".join(f"{getattr(cost, key) * factor:>10.2f}" for cost in costs.values()))
    figures = {"server_cpu_share": costs["ours"].share, "server_cpu_share_stock": costs["stock"].share}
    for name, cost in costs.items():
        figures |= {
            f"start_seconds_{name}": cost.start_seconds,
            f"start_cpu_seconds_{name}": cost.start_cpu,
            f"cpu_seconds_per_task_{name}": cost.cpu_per_task,
            f"database_bytes_per_task_{name}": cost.bytes_per_task,
        }
    figures["observed_seconds"] = seconds
    emit("server_cpu", {key: round(value, 5) for key, value in figures.items()})


if __name__ == "__main__":
    main()
