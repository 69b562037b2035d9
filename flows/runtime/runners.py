"""The task runner of a flow, built when it runs (`flows.runtime.operating`).

Never in the decorator: that runs at import. Tasks are coarse (a shard or more, seconds of work), because a
task costs 5 ms in threads but about 150 ms in processes, Ray and Dask, most of it a new API client each.
Ray assigns devices and is the one to take on a cluster; Dask does not set ``CUDA_VISIBLE_DEVICES``.
"""

import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from flows.runtime.environment import LOOPBACK, QUIET
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
    if kind == "ray":
        # Read when Ray is imported. The second is how it is told to use the loopback address alone: its own argument
        # for that, `_node_ip_address`, takes 127.0.0.1 for the address of the network.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if loopback and not address:
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        ours: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
        # A worker is another process, of another machine perhaps, and imports Prefect before us.
        ours |= {"runtime_env": {"env_vars": dict(QUIET)}, "log_to_driver": False, "logging_level": logging.ERROR}
        return _integration(kind).RayTaskRunner(address=address, init_kwargs=ours | dict(options or {}))
    package, said = _integration(kind), dict(options or {})
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what fails is told by the flow
    if address:
        return package.DaskTaskRunner(address=address, client_kwargs=said)
    ours = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    return package.DaskTaskRunner(cluster_kwargs=ours | (DASK_LOOPBACK if loopback else {}) | said)


DASK_LOOPBACK: dict[str, Any] = {"host": LOOPBACK, "dashboard_address": None}


@contextmanager
def started(runner: "TaskRunner[Any]", kind: RunnerKind, address: str | None) -> Iterator["TaskRunner[Any]"]:
    """The runner, started, for the block.

    Raises:
        RunnerError: it does not start, or no cluster answers at its address.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(runner)
            if kind == "dask":
                cast(Any, runner).client  # noqa: B018  # made when it is first asked for
        except Exception as error:
            where = f"no cluster can be joined at {address}" if address else "it does not start on this machine"
            raise RunnerError(
                f"task runner '{kind}': {where} ({type(error).__name__}: {str(error).splitlines()[0][:300]}). See that "
                "it is up, of the version that is installed here, or take runner 'processes' for one machine"
            ) from error
        yield runner


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
