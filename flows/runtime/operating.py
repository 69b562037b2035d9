"""One way to run a flow, whoever starts it: `mgd`, `mgd serve`, a worker of a deployment, or a plain call.

`stage` makes a flow whose body runs in the same surroundings everywhere: the task runner and the number of tasks at a
time that its catalog asks for, a session (the command's, or one of its own, in which runs that died are marked so), and
its progress in Prefect's log and as artifacts. Prefect's own choice of a runner, made before the body and without a
limit in a worker, is never used: the runner is exchanged inside the run.

`unit` makes a task: one unit of work with a durable record of its own. Prefect's results and cache are off; it is tried
again after faults that pass (`passing`), and after nothing else.
"""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, Task, flow, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext
from prefect.states import State
from prefect.task_runners import TaskRunner
from prefect.tasks import exponential_backoff

from flows.runtime.run_page import RunPage
from flows.runtime.runners import make_runner, started, task_resources
from flows.runtime.session import joined_session, server_answers
from flows.runtime.worker_check import check_workers
from tasks.catalog.catalogs import find_catalog, load_catalog
from tasks.catalog.files import find_study
from tasks.catalog.recipe_options import RunnerTable, RuntimeOptions
from tasks.catalog.study_options import StudyRuntimeOptions, load_study
from tasks.files.processes import cores
from tasks.files.progress import watch, watching
from tasks.files.remotes import RemoteFault
from tasks.homes.opening import opened
from tasks.modality.machine import devices_of
from tasks.runs.listing import open_run
from tasks.tables.run_folders import latest_run

P = ParamSpec("P")
R = TypeVar("R")

ATTEMPTS_MORE = 3
FIRST_WAIT = 5
"""Seconds before a unit is tried again; each wait doubles, and is drawn from half of it to one and a half."""
PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.EREMOTEIO,
}  # fmt: skip
"""What an operating system answers today and may not answer in a minute: of networks, and of disks behind them."""


def stage(name: str, of_run: bool = False) -> Callable[[Callable[P, str]], Flow[P, str]]:
    """A flow of that name, whose runs are called by it and its first parameter; the body is given parameters as they
    came, among them `home`, and `catalog` (with `overrides`), `study`, `workers` or, ``of_run``, `run`, which name the
    runner."""

    def made(work: Callable[P, str]) -> Flow[P, str]:
        signature = inspect.signature(work, eval_str=True)
        first = next(iter(signature.parameters))

        @wraps(work)
        def operated(*arguments: P.args, **named: P.kwargs) -> str:
            said = signature.bind(*arguments, **named)
            said.apply_defaults()
            with opened(said.arguments["home"]) as home:
                said.arguments["home"] = str(home)
                with _surroundings(home.resolve(), _runner(said.arguments, home.resolve() if of_run else None)):
                    return work(*said.args, **said.kwargs)

        operated.__signature__ = signature  # type: ignore[attr-defined]  # Prefect reads types in the module of `operated`
        return flow(name=name, flow_run_name=f"{name} {{{first}}}", log_prints=False)(operated)

    return made


def unit(name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task: one unit of work, called ``run_name`` with its parameters filled in."""

    def made(work: Callable[P, R]) -> Task[P, R]:
        @wraps(work)
        def told(*arguments: P.args, **named: P.kwargs) -> R:
            if watching() is not None:
                return work(*arguments, **named)
            watch(RunPage().take)  # a process of a runner, where nobody watches yet
            try:
                return work(*arguments, **named)
            finally:
                watch(None)

        return task(
            name=name,
            task_run_name=run_name or name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=ATTEMPTS_MORE,
            retry_delay_seconds=exponential_backoff(FIRST_WAIT),
            retry_jitter_factor=0.5,
            retry_condition_fn=may_pass,
        )(told)

    return made


def may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a unit failed for a reason that may be gone in a minute."""
    return passing(state.data)


def passing(error: object) -> bool:
    """Whether a fault may pass by itself: a store, a network or a disk behind one that did not answer. Mistakes, full
    disks, memory that was short and bugs do not."""
    if isinstance(error, RemoteFault | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in PASSING


@contextmanager
def tagged(*names: str) -> Iterator[None]:
    """Tag the flow run, and the tasks that are submitted in the block."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and server_answers():
        with get_client(sync_client=True) as client:
            there = client.read_flow_run(context.flow_run.id).tags
            client.update_flow_run(context.flow_run.id, tags=sorted({*there, *names}))
    with tags(*names):
        yield


@contextmanager
def _surroundings(home: Path, how: RunnerTable) -> Iterator[None]:
    context = FlowRunContext.get()
    assert context is not None, "a stage runs as a flow"
    outer = watching()
    page = RunPage(outer)
    watch(page.take)
    try:
        with (
            joined_session(home),
            started(_made(how), how.kind, how.address) as runner,
            page.ending(),
            context.model_copy(update={"task_runner": runner}),
            page.shown(),
        ):
            check_workers(runner, how.kind, home)
            with task_resources(how.kind, how.num_cpus, how.num_gpus):
                yield
    finally:
        watch(outer)


def _made(how: RunnerTable) -> TaskRunner[Any]:
    return make_runner(how.kind, how.workers or 1, how.address, how.loopback, how.options)


def _runner(said: Mapping[str, Any], runs: Path | None) -> RunnerTable:
    """What a flow's parameters say of its task runner; ``runs``: the home of the run that does, where one does."""
    runtime = None
    if runs is not None:
        runtime = open_run(runs, said["run"] or latest_run(runs)).catalog.runtime
    elif said.get("catalog"):
        runtime = load_catalog(find_catalog(said["catalog"]), said.get("overrides")).runtime
    if runtime is not None:
        return runtime.runner.model_copy(update={"workers": runtime.runner.workers or _at_once(runtime)})
    if said.get("study"):
        study = load_study(find_study(said["study"])).runtime
        return RunnerTable(kind=study.runner, workers=_at_once(study))
    if "runner" in said:
        return RunnerTable(kind=said["runner"], workers=said["workers"] or cores())
    if "workers" in said:  # what copies bytes: a process a core, unless said otherwise
        return RunnerTable(kind="processes", workers=said["workers"] or cores())
    return RunnerTable(kind="threads")


def _at_once(runtime: RuntimeOptions | StudyRuntimeOptions) -> int:
    """Tasks at a time: as many as are asked for, or as there are devices."""
    return runtime.workers or len(devices_of(runtime))
