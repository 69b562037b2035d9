"""The same bytes whatever carries the tasks? A small curation on every runner, on clusters, and with a worker killed.

`python -m benchmarks.cluster` curates one small pool with threads, which is what the others are held against; then with
processes on two CPU "devices"; with Ray and Dask, started by mgd itself and joined: two Ray nodes and two Dask workers,
each a process with a working directory and a HOME of its own, so that only mgd's home is shared. Then each once more
with the worker that trains killed (SIGKILL) in the middle: Ray and Dask try its task again by themselves; with
processes the command ends, and is given again.

* `mismatches`, `lost`: published files (tables, counts, subset) that differ from threads', or are missing;
* `nodes`: places that took tasks; `at_once`: most devices that were held at one time; `overlap`: how many were held, on
  average over the time in which one was held while shards were probed and subsets trained (a round's own training is
  one task), from the kernel's table of locks;
* `open_ports`: sockets of all these processes that could be reached from beyond the loopback; there may be none of what
  mgd starts, while the nodes of a cluster listen as whoever starts them says.

Ray and Dask rows are `not run` where prefect-ray or prefect-dask is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._envelope import emit
from flows.runtime.environment import CLIENT_AUTH
from flows.runtime.server import ensure_server, server_status, stop_server
from testing.open_ports import open_ports
from testing.small_catalog import published, small_catalog

ROOT = Path(__file__).parents[1]
PATIENCE = 3000.0  # seconds for the small curation to end on a busy machine
LOOK_EVERY = 0.02
STARTS = 5  # more, of a Ray of mgd's own and of a node of Ray
CATALOG = (
    ("shard_size = 100", "shard_size = 20"),
    ("steps = 8\n", "steps = 100\n"),
    ("window_start = 4", "window_start = 92"),
    ("probe_steps = [4, 6]", "probe_steps = [94, 98]"),
    ("rounds = 2", "rounds = 1"),
    ('"loss_filter", "own_clip_filter", "mgd", "oracle"', '"mgd"'),
    ("seeds = [1]", "seeds = [1, 2]"),
)
"""Changes of the small catalog: a dozen shards to probe, and six trainings that are longer than what Prefect adds."""
TWO = ("runtime.devices=['cpu', 'cpu']",)


@dataclass
class Row:
    """What came of one runner."""

    runner: str
    nodes: int
    killed: bool = False
    mismatches: int | str = "not run"
    lost: int = 0
    at_once: int = 0
    overlap: float = 0.0
    open_ports: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether it is not what it has to be."""
        exposed = self.open_ports and self.nodes == 1  # a cluster's nodes are reached by each other, as it was started
        return self.mismatches != "not run" and bool(self.mismatches or self.lost or exposed)


class Locks(threading.Thread):
    """Counts the devices that are held, every LOOK_EVERY seconds, in /proc/locks."""

    def __init__(self, place: Path, home: Path) -> None:
        super().__init__(daemon=True)
        self.place, self.home, self.ended = place, home, threading.Event()
        self.counts: list[int] = []
        self.ports: set[str] = set()

    def run(self) -> None:
        """Look until it is ended."""
        looked = 0
        while not self.ended.wait(LOOK_EVERY):
            looked += 1
            if self.side_by_side():
                self.counts.append(len(self.held()))
            if looked % 50 == 0:
                self.ports |= open_ports(f"HOME={self.place}")

    def side_by_side(self) -> bool:
        """Whether the run is where tasks do not wait for each other's results."""
        for work in self.home.glob("runs/*/work"):
            probing = (work / "round-000/replayed.json").exists() and not (work / "round-001").exists()
            return probing or (work / "round-001/replayed.json").exists()
        return False

    def held(self) -> list[Path]:
        """Locks of devices that are held now."""
        files = {path.stat().st_ino: path for path in self.place.glob("*/.cache/mgd/locks/*/*.lock")}
        inodes = re.findall(r"FLOCK .* [0-9a-f:]+:(\d+) 0 EOF", Path("/proc/locks").read_text())
        return [files[int(inode)] for inode in inodes if int(inode) in files]


class Site:
    """A place with a Prefect server and the catalog; every node that `node` makes has a HOME below it."""

    def __init__(self, place: Path) -> None:
        self.place, self.catalog = place, small_catalog(place / "pool", *CATALOG)
        server = {"PREFECT_API_URL": ensure_server(place / "server")}
        self.server = server | {CLIENT_AUTH: str(server_status(place / "server").password)}
        self.token = "0" * 64

    def node(self, name: str) -> dict[str, Any]:
        """Working directory and environment of a process that is a machine of its own but for its network."""
        home = self.place / name
        home.mkdir(exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MGD_", "RAY_"))}
        ours = {"HOME": str(home), "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"}
        ours |= {"RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}
        return {"cwd": home, "env": kept | ours}

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """A part of a cluster, in a session of its own, which writes to a log."""
        with (self.place / f"{name}.log").open("ab") as log:
            how: dict[str, Any] = {"stdout": log, "stderr": log, "start_new_session": True, **self.node(name)}
            return subprocess.Popen([sys.executable, "-m", *command], **how)

    def curate(self, home: Path, *settings: str, kill: bool = False) -> tuple[str, int]:
        """Run the command; with ``kill``, end the process that holds a device once a round was trained. Returns what it
        said, and its status."""
        changes = [word for one in settings for word in ("--set", one)]
        command = [sys.executable, "-m", "flows.cli", "curate", str(self.catalog), "--home", str(home), *changes]
        with (self.place / f"{home.name}.log").open("w+") as log:
            how: dict[str, Any] = {"stdout": log, "stderr": log, **self.node("driver")}
            how["env"] |= self.server  # of the flow's process alone: tasks bring it along
            process = subprocess.Popen(command, **how)
            try:
                if kill:
                    self._kill_one(home, process)
                status = process.wait(PATIENCE)
            finally:
                process.kill()
            log.seek(0)
            return log.read(), status

    def _kill_one(self, home: Path, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to the process that holds a device, while the first round's shards are probed."""
        until = time.monotonic() + PATIENCE
        locks = Locks(self.place, home)
        while process.poll() is None and time.monotonic() < until:
            held = locks.held() if list(home.glob("runs/*/work/round-000/probe-*.json")) else []
            for path in held:
                found = re.match(r"process (\d+), ", path.read_text())
                if found and int(found[1]) != process.pid:
                    os.kill(int(found[1]), signal.SIGKILL)
                    return
            time.sleep(0.002)
        raise AssertionError(f"nothing was killed: the command ended with {process.poll()} before")


def curated(site: Site, row: Row, *settings: str) -> Row:
    """Curate in a home of its own and hold it against what threads made."""
    home = site.place / f"{row.runner.replace(' ', '-')}{'-killed' if row.killed else ''}"
    shutil.rmtree(home, ignore_errors=True)
    locks = Locks(site.place, home)
    locks.start()
    try:
        said, status = site.curate(home, *settings, kill=row.killed)
        for _ in range(STARTS):
            if "it does not start on this machine" in said:  # Ray gives its own parts 30 s, whatever else runs here
                said, status = site.curate(home, *settings, kill=row.killed)
        if row.killed and status:
            assert "give the same command again" in said and "Traceback" not in said, said[-3000:]
            said, status = site.curate(home, *settings)
            row.note = "the same command again"
        elif row.killed:
            row.note = "tried again by the runner"
    finally:
        locks.ended.set()
        locks.join()
    assert status == 0, f"{row.runner}: {said[-3000:]}"
    there, wanted = of(home), of(site.place / "threads")
    row.lost = len(wanted.keys() - there.keys())
    row.mismatches = sum(there[name] != wanted[name] for name in wanted.keys() & there.keys())
    busy = [count for count in locks.counts if count]
    row.at_once, row.overlap = max(busy), round(sum(busy) / len(busy), 2)
    row.open_ports = sorted(locks.ports)
    return row


def of(home: Path) -> dict[str, bytes]:
    """What the run in a home published."""
    (directory,) = (home / "runs").iterdir()
    return published(directory)


@contextmanager
def ray_cluster(site: Site) -> Iterator[str]:
    """Two nodes with a CPU each, its address: loopback addresses of their own, as Ray takes 127.0.0.1 for any of this
    machine's."""
    port, shared = free_port(), ["--num-cpus=1", "--block", "--disable-usage-stats"]
    addresses = ("127.0.0.2", "127.0.0.3")
    session = Path(tempfile.mkdtemp(prefix="ray"))  # a short path: sockets lie below it
    head = [
        "--head",
        f"--node-ip-address={addresses[0]}",
        f"--port={port}",
        "--include-dashboard=false",
        f"--temp-dir={session}",
        f"--ray-client-server-port={free_port()}",
    ]
    ray = ("ray.scripts.scripts", "start")
    nodes = [site.start("node-1", *ray, *shared, *head)]
    try:
        wait_for(site, f"{addresses[0]}:{port}", nodes[0])
        other = [f"--address={addresses[0]}:{port}", f"--node-ip-address={addresses[1]}"]
        other.append(f"--dashboard-agent-listen-port={free_port()}")
        nodes.append(site.start("node-2", *ray, *shared, *other))
        until = time.monotonic() + PATIENCE
        while "Ray runtime started" not in (site.place / "node-2.log").read_text() and time.monotonic() < until:
            time.sleep(0.5)
            if nodes[1].poll() is not None:
                nodes[1] = site.start("node-2", *ray, *shared, *other)
        yield f"{addresses[0]}:{port}"
    finally:
        end(*nodes)
        shutil.rmtree(session, ignore_errors=True)


@contextmanager
def dask_cluster(site: Site) -> Iterator[str]:
    """A scheduler and two workers of a thread each; its address."""
    address, dask = f"tcp://127.0.0.1:{free_port()}", "distributed.cli"
    nodes = [
        site.start(
            "scheduler",
            f"{dask}.dask_scheduler",
            "--host=127.0.0.1",
            f"--port={address.rpartition(':')[2]}",
            "--dashboard-address=127.0.0.1:0",  # without a dashboard there is a web server all the same
        )
    ]
    how = ("--host=127.0.0.1", "--nthreads=1", "--dashboard-address=127.0.0.1:0", "--memory-limit=0")
    try:
        wait_for(site, address.removeprefix("tcp://"), nodes[0])
        nodes += [site.start(name, f"{dask}.dask_worker", address, *how) for name in ("worker-1", "worker-2")]
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not all(
            "Registered to" in (site.place / f"{name}.log").read_text() for name in ("worker-1", "worker-2")
        ):
            time.sleep(0.5)
        yield address
    finally:
        end(*nodes)


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(site: Site, address: str, node: subprocess.Popen[bytes]) -> None:
    """Until a node listens there."""
    host, _, port = address.partition(":")
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and node.poll() is None:
        with socket.socket() as asked:
            if asked.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nothing listens at {address}: see the logs in {site.place}")


def end(*nodes: subprocess.Popen[bytes]) -> None:
    """End the nodes, with all that they started."""
    for node in reversed(nodes):
        os.killpg(node.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            node.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)


def clustered(site: Site, kind: str) -> Iterator[Row]:
    """The rows of Ray or Dask."""
    local, joined = f"{kind} local", f"{kind} joined"
    if importlib.util.find_spec(f"prefect_{kind}") is None:
        yield from (Row(local, 1), Row(joined, 2), Row(joined, 2, killed=True))
        return
    yield curated(site, Row(local, 1), f"runtime.runner.kind={kind}", *TWO)
    with (ray_cluster if kind == "ray" else dask_cluster)(site) as address:
        how = (f"runtime.runner.kind={kind}", f"runtime.runner.address={address}")
        yield curated(site, Row(joined, 2), *how)
        yield curated(site, Row(joined, 2, killed=True), *how)


def main() -> None:
    """Run, print the table, and end with status 1 where a row is not what it has to be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="threads and processes only")
    parser.add_argument("--only", choices=("processes", "ray", "dask"), help="one kind, beside threads")
    parser.add_argument("--keep", action="store_true", help="leave the place, with all logs, and say where it is")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="mgd-cluster-"))
    rows = []
    try:
        site = Site(place)
        for row in rows_of(
            site, [options.only] if options.only else ["processes", "ray", "dask"][: 1 if options.quick else 3]
        ):
            rows.append(row)
            what = f"{row.runner}{', a worker killed' if row.killed else ''}"
            print(
                f"{what:<32}",
                *(f"{key} {value}" for key, value in vars(row).items() if key not in ("runner", "killed")),
                flush=True,
            )
    finally:
        stop_server(place / "server")
        if options.keep:
            print(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)
    emit("cluster", {"rows": [vars(row) for row in rows], "failed": sum(row.failed for row in rows)})
    sys.exit(any(row.failed for row in rows))


def rows_of(site: Site, kinds: list[str]) -> Iterator[Row]:
    """The rows of some kinds of runners, after that of threads."""
    yield curated(site, Row("threads", 1))
    for kind in kinds:
        if kind == "processes":
            yield curated(site, Row(kind, 1), *TWO)
            yield curated(site, Row(kind, 1, killed=True), *TWO)
        else:
            yield from clustered(site, kind)


if __name__ == "__main__":
    main()
