"""Before any task goes to a Ray or Dask cluster, each of its workers proves that it can do this home's work.

It imports this program, reads a token that the flow left in the home, writes it back under a name of its own, and asks
the Prefect server whether it is there. That its processor would give the bits of the run is looked at where a device is
taken (`flows.pool_building.device_of`). Workers that join a cluster later are not asked.
"""

from __future__ import annotations

import importlib
import shutil
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.runtime.session import answers
from mgd_core.errors import UserError
from tasks.files.package_data import product
from tasks.files.progress import begin, say

PATIENCE = 120.0
"""Seconds in which a worker has to be there, and has to answer."""


class WorkerCannot(UserError, RuntimeError):
    """A worker of the cluster cannot do this home's work."""


def check_workers(runner: Any, kind: str, home: Path) -> None:
    """Ask every worker of a Ray or Dask runner; says which hosts they are on.

    Raises:
        WorkerCannot: naming the worker, what it cannot, and what to do.
    """
    if kind not in _ASK:
        return
    from prefect.settings import PREFECT_API_URL

    begin("ask the workers whether they see the home")
    folder, token = home / ".locks" / "workers" / uuid.uuid4().hex, uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        (folder / "token").write_text(token)
        said = _ASK[kind](runner, str(folder), PREFECT_API_URL.value())
        for worker, found in sorted(said.items()):
            _check(worker, found, folder, token, home, PREFECT_API_URL.value())
        hosts = sorted({str(found["host"]) for found in said.values()})
        say(f"{kind}: {len(said)} workers on {', '.join(hosts)} see the home and the Prefect server")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def answer(folder: str, url: str | None) -> dict[str, Any]:
    """What a worker says: run there."""
    name = uuid.uuid4().hex
    found: dict[str, Any] = {"host": socket.gethostname(), "mgd": product(), "name": name}
    try:
        Path(folder, name).write_text(Path(folder, "token").read_text())
    except OSError as error:
        found["home"] = str(error)
    return found | {"server": url is None or answers(url)}


def _check(worker: str, said: object, folder: Path, token: str, home: Path, url: str | None) -> None:
    if not isinstance(said, Mapping):
        why = f"{type(said).__name__}: {str(said).splitlines()[-1][:300]}"
        told = "Install the same packages there as here, mgd among them"
        raise WorkerCannot(f"worker {worker} of the cluster cannot run mgd ({why}). {told}")
    who = f"worker {worker} of the cluster, on host {said['host']},"
    path = folder / said["name"]
    written = path.read_text() if path.exists() else None
    if written != token:
        raise WorkerCannot(
            f"{who} does not see the home {home}: what was written on one side is not read on the other "
            f"({said.get('home') or 'it sees another directory of that name'}). Mount the same directory there under "
            "the same path, writable, or name a --home that all machines share"
        )
    if not said["server"]:
        raise WorkerCannot(
            f"{who} does not reach the Prefect server at {url}. Start one that listens on the network, and set "
            "PREFECT_API_URL to its address, seen from there"
        )
    if said["mgd"] != product():
        raise WorkerCannot(f"{who} has mgd {said['mgd']}, and {product()} is here; install the same version")


def _ask_ray(_: Any, *arguments: Any) -> dict[str, Any]:
    ray = importlib.import_module("ray")
    near = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    nodes = [one for one in ray.nodes() if one["Alive"] and one["Resources"].get("CPU")]
    asked = ray.remote(answer)
    coming = {}
    for one in nodes:
        there = asked.options(num_cpus=0, max_retries=0, scheduling_strategy=near(one["NodeID"], soft=False))
        coming[f"{one['NodeManagerHostname']} ({one['NodeID'][:8]})"] = there.remote(*arguments)
    said = {}
    for worker, one in coming.items():
        try:
            said[worker] = ray.get(one, timeout=PATIENCE)
        except Exception as error:
            said[worker] = error
    if not said:
        raise WorkerCannot("the Ray cluster has no node with a CPU that would take a task; start one with `ray start`")
    return said


def _ask_dask(runner: Any, *arguments: Any) -> dict[str, Any]:
    try:
        runner.client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise WorkerCannot(
            f"the Dask cluster has had no worker for {PATIENCE:.0f} s; start some with `dask worker`"
        ) from error
    said: dict[str, Any] = runner.client.run(answer, *arguments, on_error="return")
    return said


_ASK = {"ray": _ask_ray, "dask": _ask_dask}
