"""The task runner of a flow, built when it runs (`flows.runtime.operating`).

Never in the decorator: that runs at import. Tasks are coarse (a shard or more, seconds of work), because a
task costs 5 ms in threads but about 150 ms in processes, Ray and Dask, most of it a new API client each.
Ray assigns devices and is the one to take on a cluster; Dask does not set ``CUDA_VISIBLE_DEVICES``.
"""

import importlib
import os
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

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


def make_runner(kind: RunnerKind, workers: int) -> "TaskRunner[Any]":
    """A Prefect task runner with `workers` (>= 1) tasks at a time.

    Raises RunnerError for an unknown kind or a bad count, and RunnerMissing naming the package to install
    where Ray or Dask is asked for and is not there.
    """
    if workers < 1:
        raise RunnerError(f"a task runner needs at least one worker, got {workers}")
    if kind == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=workers)
    if kind == "processes":
        from prefect.task_runners import ProcessPoolTaskRunner

        return ProcessPoolTaskRunner(max_workers=workers)
    if kind == "ray":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read by Ray when it starts
        return _integration("ray").RayTaskRunner(init_kwargs={"num_cpus": workers})
    if kind == "dask":
        cluster = {"n_workers": workers, "threads_per_worker": 1}
        return _integration("dask").DaskTaskRunner(cluster_kwargs=cluster)
    raise RunnerError(f"unknown task runner {kind!r}: choose one of {', '.join(get_args(RunnerKind))}")


class RunnerOptions(Protocol):
    """What a catalog says of the runner: its kind, and how many tasks at a time."""

    @property
    def runner(self) -> RunnerKind:
        """See `make_runner`."""

    @property
    def workers(self) -> int:
        """See `make_runner`."""


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
