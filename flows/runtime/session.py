"""One command's use of Prefect: the right server, the settings, and the runs that died marked so.

Prefect leaves the run of a killed process `Running` for ever. Each session therefore holds an flock on a
file of its own under ``<home>/.locks/sessions``, and its flow runs carry the file's name as a label (the
hook :func:`record_session`). A file that can be locked belongs to a session that is dead, whatever killed
it: at the next start its runs are set to `Crashed`. This needs no pid, no heartbeat and no clock, and two
homes, machines or containers that share one Prefect server never judge each other's runs.
"""

import os
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.runtime.environment import (
    CLIENT_AUTH,
    LOOPBACK,
    external_api_url,
    password,
    prefect_home,
    prepare_environment,
)
from flows.runtime.locks import exclusive, try_lock
from flows.runtime.logs import logged
from flows.runtime.server import ensure_server, server_status
from mgd_core.errors import UserError
from tasks.files.progress import begin, say

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

SESSION_LABEL = "mgd.session"
PID_LABEL = "mgd.pid"
LOCAL = "local"
_PAGE = 200  # flow runs a request; Prefect's own limit
RETRIES = 3  # of a request, within about 10 s; Prefect's own 5 take a minute to find out that a server is dead
ANSWER_SECONDS = 5.0
SENDING_SECONDS = 5.0  # for the queues of logs and events at the end of a session


class ScheduleError(UserError, ValueError):
    """When to run cannot be understood."""


class HomeInUse(UserError, RuntimeError):
    """Something runs in the home."""


class NoServer(UserError, ConnectionError):
    """No Prefect server answers where the user says that there is one."""


_lost: list[str] = []
_session: ContextVar[str | None] = ContextVar("mgd_session", default=None)


@contextmanager
def prefect_session(home: Path) -> Iterator[str]:
    """Run flows inside: on the server of ``PREFECT_API_URL`` if it is set, else on the home's own.

    Yields the API address, which is in the environment before Prefect is imported, here or in a process that a task
    runner starts, for the time of the block. Flow heartbeats are off (joining their thread costs 1 s at the end of each
    flow run). A server that dies in the meantime takes its history with it and nothing else: it is told, and
    `history_lost` says so. Raises ServerError if our own server does not start, NoServer if the user's does not answer.
    """
    prepare_environment(home)
    external = external_api_url()
    begin("look for the Prefect server" if external else "start the local Prefect server")
    url = external or ensure_server(home)
    guard = None if external else password(prefect_home(home))
    with _in_environment(url, guard), _on_server(home, url, external), logged(home):
        try:
            yield url
        finally:
            if answers(url):
                _send_what_is_queued()
            else:
                _lose(url)


@contextmanager
def joined_session(home: Path) -> Iterator[None]:
    """Be in the session of this process, or, where a worker runs the flow, in one of its own; label the flow run."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context else None
    with logged(home):
        if not server_answers():
            with at_work(home):
                yield
        elif _session.get() is None:
            from prefect.client.orchestration import get_client

            with get_client(sync_client=True) as client:
                mark_dead_runs(home, client)
            with _held_session_file(home):
                record_session(None, run, None)
                yield
        else:
            record_session(None, run, None)
            yield


@contextmanager
def _in_environment(url: str, guard: str | None) -> Iterator[None]:
    """Where the server is, and the password (``guard``) of ours, for processes that this one starts."""
    said = {"PREFECT_API_URL": url, **({CLIENT_AUTH: guard} if guard else {})}
    before = {name: os.environ.get(name) for name in said}
    os.environ |= said
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _on_server(home: Path, url: str, external: str | None) -> Iterator[None]:
    """Prefect's settings for a session, and the session itself."""
    begin("load Prefect")
    from prefect.client.orchestration import get_client
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    guard = {PREFECT_API_AUTH_STRING: os.environ[CLIENT_AUTH]} if CLIENT_AUTH in os.environ else {}
    settings = guard | {
        PREFECT_API_URL: url,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_CLIENT_MAX_RETRIES: RETRIES,
    }
    with temporary_settings(settings):
        with get_client(sync_client=True) as client:
            if external is not None:
                _check_answer(client, external)
            mark_dead_runs(home, client)
        with _held_session_file(home):
            yield


def answers(url: str) -> bool:
    """Whether anything answers at the address of an API: its process lives."""
    direct = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if LOOPBACK in url else []))
    try:
        with direct.open(f"{url}/health", timeout=ANSWER_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def server_answers() -> bool:
    """Whether the server that this process runs flows on is there."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    return url is None or answers(url)


def history_lost() -> bool:
    """Whether a server died while this process used it. Prefect's threads would go on knocking at its door for minutes
    at the end of the process."""
    return bool(_lost)


def _lose(url: str) -> None:
    _lost.append(url)
    say(
        f"the Prefect server at {url} ended while this ran: its history of this run is lost. Results are not, they are "
        "kept apart from it"
    )


def check_schedule(home: Path, cron: str) -> None:
    """Raise ScheduleError unless ``cron`` is a schedule that Prefect can follow."""
    prepare_environment(home)
    with warnings.catch_warnings():  # Prefect would make its directory in a home that is not there yet
        warnings.simplefilter("ignore", UserWarning)
        from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise ScheduleError(
            f"--cron {cron!r} is no schedule: it takes five fields (minute, hour, day, month, day of the week), "
            'for instance "0 3 * * *": every night at three'
        ) from error


def _send_what_is_queued() -> None:
    """Logs and events go to the server from queues; whoever stops it next must not leave them knocking at its door."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=SENDING_SECONDS)


def record_session(flow: Any, flow_run: "FlowRun | None", state: Any) -> None:
    """Label a run with the session that executes it: a hook, ``@flow(on_running=[record_session])``.

    Outside a session it does nothing.
    """
    session = _session.get()
    if session is None or flow_run is None:
        return
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, {SESSION_LABEL: session, PID_LABEL: os.getpid()})


def mark_dead_runs(home: Path, client: "SyncPrefectClient") -> int:
    """Set the unfinished flow runs of this home's dead sessions to `Crashed`; how many there were.

    A session that ran on another server than the present one waits for a command that uses that server.
    """
    folder = _sessions(home)
    marked = 0
    with exclusive(folder / "sweep.lock"):
        note = _server_note(home)
        dead = {path.stem: path for path in folder.glob("*.session") if _is_dead(path, note)}
        if dead:
            for run in _unfinished_runs(client):
                if run.labels.get(SESSION_LABEL) in dead:
                    _crash(client, run)
                    marked += 1
        for path in dead.values():  # last, so that a sweep cut off is done again
            path.unlink()
    return marked


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Nothing of mgd is at work in a home, and what would begin waits until the block has ended.

    Raises:
        HomeInUse: something is.
    """
    from tasks.homes.opening import own_home

    folder = _sessions(home)
    with exclusive(folder / "sweep.lock") if home.is_dir() else nullcontext():
        for path in (*folder.glob("*.session"), *(folder.parent / "runs").glob("*.lock")):
            descriptor = try_lock(path)
            if descriptor is None:
                raise HomeInUse(f"{home}: a command of mgd is at work there; wait for it to end, or stop it")
            os.close(descriptor)
        own_home(home)
        yield


@contextmanager
def at_work(home: Path) -> Iterator[None]:
    """Let nobody remove in the meantime what a home holds, where there is one that may be written."""
    may = home.is_dir() and os.access(home, os.W_OK)
    with _held_session_file(home, LOCAL) if may else nullcontext():
        yield


@contextmanager
def _held_session_file(home: Path, note: str | None = None) -> Iterator[None]:
    session = uuid.uuid4().hex
    path = _sessions(home) / f"{session}.session"
    with exclusive(path.parent / "sweep.lock"):  # nobody may find the file before it is locked
        descriptor = try_lock(path)
        path.write_text(note or _server_note(home))
    token = _session.set(session)
    try:
        yield
    finally:
        _session.reset(token)
        path.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def _sessions(home: Path) -> Path:
    return Path(home).resolve() / ".locks" / "sessions"


def _server_note(home: Path) -> str:
    """Which server a session talks to: the user's address, or the home's own, whose port may change."""
    url = external_api_url()
    return LOCAL if url in (None, server_status(home).url) else str(url)


def _is_dead(path: Path, note: str) -> bool:
    """Whether the session ran on the present server and nobody holds its lock any more."""
    if path.read_text() != note:
        return False
    descriptor = try_lock(path)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _unfinished_runs(client: "SyncPrefectClient") -> list["FlowRun"]:
    """Every flow run that Prefect believes to be under way."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    going = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    under_way = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=going)))
    runs: list[FlowRun] = []
    while page := client.read_flow_runs(flow_run_filter=under_way, limit=_PAGE, offset=len(runs)):
        runs.extend(page)
    return runs


def _crash(client: "SyncPrefectClient", run: "FlowRun") -> None:
    """End a flow run, and the task runs it left open, in the server's books."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    state: Any = Crashed(message=f"process {run.labels.get(PID_LABEL)} ended without finishing this run")
    going = [StateType.RUNNING, StateType.PENDING]
    open_tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=going))),
    )
    for task_run in open_tasks:
        client.set_task_run_state(task_run.id, state, force=True)
    client.set_flow_run_state(run.id, state, force=True)


def _check_answer(client: "SyncPrefectClient", url: str) -> None:
    problem = client.api_healthcheck()
    if problem is not None:
        raise NoServer(
            f"PREFECT_API_URL is {url}, and no Prefect server answers there ({problem!r}). "
            "Start that server, or unset the variable to let mgd run its own."
        )
