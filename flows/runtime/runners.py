"""The task runner of a flow, built when it runs (`flows.runtime.operating`).

Never in the decorator: that runs at import. Tasks are coarse (a shard or more, seconds of work), because a
task costs 5 ms in threads but about 150 ms in processes, Ray and Dask, most of it a new API client each.
Ray assigns devices and is the one to take on a cluster; Dask does not set ``CUDA_VISIBLE_DEVICES``.
"""

import importlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from flows.runtime.environment import LOOPBACK
from flows.runtime.session import server_answers
from mgd_core.errors import UserError

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.task_runners import TaskRunner


class RunnerMissing(UserError, ImportError):
    """The task runner that a catalog asks for is not installed; names the package."""


class RunnerError(UserError, ValueError):
    """No task runner can be made of these settings."""


RunnerKind = Literal["threads", "processes", "ray", "dask"]


def make_runner(
    kind: RunnerKind,
    workers: int,
    address: str | None = None,
    loopback: bool = True,
    options: Mapping[str, Any] | None = None,
) -> "TaskRunner[Any]":
    """A Prefect task runner with `workers` (>= 1) tasks at a time, or that of the Ray or Dask cluster at `address`.

    `options` are further arguments of `ray.init` or of Dask's cluster or client. What is started here listens on the
    loopback address only, unless not `loopback`. Raises RunnerError for an unknown kind or a bad count, and
    RunnerMissing naming the package to install where Ray or Dask is asked for and is not there.
    """
    if workers < 1:
        raise RunnerError(f"a task runner needs at least one worker, got {workers}")
    if kind == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=workers)
    if kind == "processes":
        from prefect.task_runners import ProcessPoolTaskRunner

        return ProcessPoolTaskRunner(max_workers=workers)
    if kind not in get_args(RunnerKind):
        raise RunnerError(f"unknown task runner {kind!r}: choose one of {', '.join(get_args(RunnerKind))}")
    package, said = _integration(kind), dict(options or {})
    if kind == "ray":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read by Ray when it starts
        ours = {} if address else {"num_cpus": workers} | (RAY_LOOPBACK if loopback else {})
        return package.RayTaskRunner(address=address, init_kwargs=ours | said)
    if address:
        return package.DaskTaskRunner(address=address, client_kwargs=said)
    ours = {"n_workers": workers, "threads_per_worker": 1} | (DASK_LOOPBACK if loopback else {})
    return package.DaskTaskRunner(cluster_kwargs=ours | said)


RAY_LOOPBACK: dict[str, Any] = {"_node_ip_address": LOOPBACK, "include_dashboard": False}
DASK_LOOPBACK: dict[str, Any] = {"host": LOOPBACK, "dashboard_address": None}


def task_resources(kind: RunnerKind, num_cpus: float, num_gpus: float) -> AbstractContextManager[Any]:
    """What each task that is submitted in the block takes of a cluster. A Ray worker is kept after a task with GPUs: it
    would load its model anew each time."""
    if kind == "ray":
        _integration(kind)
        kept = {"max_calls": 0} if num_gpus else {}
        remote = importlib.import_module("prefect_ray.context").remote_options
        return cast(AbstractContextManager[Any], remote(num_cpus=num_cpus, num_gpus=num_gpus, **kept))
    if kind == "dask" and num_gpus:
        _integration(kind)
        return cast(AbstractContextManager[Any], importlib.import_module("dask").annotate(resources={"GPU": num_gpus}))
    return nullcontext()


def run_flow(flow: "Flow[..., str]", *arguments: object, **named: object) -> str:
    """Run `flow` in this process; returns what the flow does, also where Prefect could not tell its server so: a server
    that died takes its history with it, not our results."""
    made = flow.with_options()
    work, done = made.fn, []

    @wraps(work)
    def kept(*inputs: object, **more: object) -> str:
        done.append(work(*inputs, **more))
        return done[0]

    made.fn = kept
    try:
        return made(*arguments, **named)
    except Exception:
        if done and not server_answers():
            return done[0]
        raise


def _integration(name: str) -> ModuleType:
    """Prefect's integration package for Ray or Dask, which this project does not install by itself."""
    try:
        return importlib.import_module(f"prefect_{name}")
    except ImportError as error:
        raise RunnerMissing(
            f"the task runner {name!r} needs the package prefect-{name}, which cannot be imported ({error}); "
            f"install it with: pip install 'mgd[{name}]', or choose 'threads' or 'processes'"
        ) from error
