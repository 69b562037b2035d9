"""The persistent local Prefect server of a home: started when first needed, reused, stopped by command.

Prefect's own ephemeral server is not fit for real runs: it loses the last task runs, outlives a killed
client and hangs on Ctrl-C. So the first command that needs a server starts one in a session of its own and
leaves it running; the next one finds it by ``server.json``. Its output is in ``<home>/logs/server.log``, and under
``<home>/.prefect``:

    server.lock     held while a server is looked for, started or stopped: two commands start one server
    server.json     url, pid and start time of the process; written before the server answers, by rename
    prefect.db      its SQLite database: the run history
    password        of its API and pages, for its user alone

A record is believed only if its process lives *with the same start time*, works in this directory, and the address
answers *as the server of this directory*, so that neither a recycled pid or port nor the server of the home that this
one is a copy of is mistaken for ours. That of a home that was moved is ended, and another started. Linux only (/proc).
A start takes about 10 s with a new database and 5 s with an old one; then the server takes about 230 MB and
1 % of a core (``python -m benchmarks.server_cpu``). It listens on the loopback address only, on the port that it had
last where that is free, and has a password: the home's own, or what PREFECT_SERVER_API_AUTH_STRING says.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from flows.runtime.environment import (
    CLIENT_AUTH,
    LEAN_SERVICES,
    LOOPBACK,
    SERVER_AUTH,
    make_password,
    password,
    prefect_home,
    server_environment,
)
from flows.runtime.locks import exclusive
from flows.runtime.logs import logs_folder, turned
from mgd_core.errors import UserError

_POLL_SECONDS = 0.1
_STOP_SECONDS = 15.0  # then SIGKILL; a quiet server goes within a second
_PORT_ATTEMPTS = 3  # a free port may be taken by someone else before the server binds it


class ServerError(UserError, RuntimeError):
    """The local server cannot be started, or runs and does not answer."""


@dataclass(frozen=True)
class ServerRecord:
    """The content of server.json: where the server answers and which process it is."""

    url: str
    pid: int
    started: str

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return process_start(self.pid) == self.started

    def of(self, base: Path) -> Literal["ours", "moved", "none"]:
        """Whether that very process runs and is of `base`; `moved`: it is, and was started where that was before."""
        try:
            where = os.readlink(f"/proc/{self.pid}/cwd")
            said = Path(f"/proc/{self.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return "none"
        gone = where.endswith(" (deleted)")
        if not self.alive() or not (gone or Path(where) == base):
            return "none"
        return "ours" if not gone and os.fsencode(f"PREFECT_HOME={base}") in said else "moved"


@dataclass(frozen=True)
class ServerStatus:
    """What `mgd server status` shows. `url` is the API; the web interface is the same without "/api"."""

    running: bool
    url: str | None
    pid: int | None
    log: Path
    password: str = ""


def ensure_server(home: Path, *, timeout: float = 300.0, services: Mapping[str, str] = LEAN_SERVICES) -> str:
    """The API address of the home's server, which is started if it does not run.

    Waits up to `timeout` seconds for an answer. Raises ServerError with the end of the log otherwise.
    """
    base = prefect_home(home)
    base.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with exclusive(base / "server.lock", note=str(os.getpid())):
        record = read_record(base / "server.json")
        make_password(base)
        place = record.of(base) if record is not None else "none"
        if record is not None and place == "moved":
            _terminate(record)
        elif record is not None and place == "ours" and _wait_until_it_answers(record, base, deadline):
            return record.url
        return _start(base, deadline, services)


def stop_server(home: Path) -> bool:
    """Stop the home's server and that of its pages, politely and then not; False if the first was not running. Its
    history stays."""
    base = prefect_home(home)
    if not base.is_dir():
        return False
    with exclusive(base / "server.lock", note=str(os.getpid())):
        record = read_record(base / "server.json")
        running = record is not None and record.of(base) != "none"
        if record is not None and running:
            _terminate(record)
        pages = read_record(base / "pages.json")
        if pages is not None and pages.of(base) != "none":
            _terminate(pages)
        for name in ("server.json", "pages.json"):
            (base / name).unlink(missing_ok=True)
        return running


def server_status(home: Path) -> ServerStatus:
    """Whether the home's server runs and answers, without starting one or waiting long for it."""
    base = prefect_home(home)
    record = read_record(base / "server.json")
    log = _log(base)
    if record is None or record.of(base) != "ours":
        return ServerStatus(running=False, url=None, pid=None, log=log)
    running = _answers(record.url, base)
    return ServerStatus(running=running, url=record.url, pid=record.pid, log=log, password=password(base))


def format_status(status: ServerStatus) -> str:
    """A status for the terminal."""
    if status.url is None:
        told = "no local server is running here; a command that needs one starts it"
    elif status.running:
        told = f"running at {status.url.removesuffix('/api')} (process {status.pid})"
        if status.password:
            told += f"\npassword  {status.password}  (its page asks for it once; Prefect's own commands: {CLIENT_AUTH})"
    else:
        told = f"process {status.pid} runs and does not answer at {status.url}: end it with `mgd server stop`"
    return told + (f"\nlog  {status.log}" if status.log.exists() else "")


def process_start(pid: int) -> str | None:
    """Boot id and start time (clock ticks since boot) of a process; None if there is none, or only a zombie.

    Together with the pid this names one process for all time; the pid alone is reused.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, spaces and parentheses too: count from the last one.
    state, *rest = stat.rpartition(")")[2].split()
    if state in "ZX":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{rest[18]}"


def _start(base: Path, deadline: float, services: Mapping[str, str]) -> str:
    for attempt in range(_PORT_ATTEMPTS):
        port = _free_port(None if attempt else _last_port(base))
        process = _spawn(base, port, services)
        started = process_start(process.pid)
        if started is not None:
            # Written before the wait: if we are killed now, the next command finds this server, not none.
            record = ServerRecord(f"http://{LOOPBACK}:{port}/api", process.pid, started)
            write_record(base / "server.json", record)
            if _wait_until_it_answers(record, base, deadline):
                (base / "port").write_text(f"{port}\n")
                return record.url
        if f"Port {port} is already in use" not in _log_tail(base):
            break
    raise ServerError(
        f"the local Prefect server in {base} stopped while starting; the end of its log:\n{_log_tail(base)}"
    )


def _wait_until_it_answers(record: ServerRecord, base: Path, deadline: float) -> bool:
    """True once the server answers, False if its process ends; ServerError at the deadline."""
    while record.alive():
        if _answers(record.url, base):
            return True
        if time.monotonic() > deadline:
            raise ServerError(
                f"the local Prefect server (process {record.pid}) runs but does not answer at {record.url}. "
                f"Stop it with `mgd server stop` and try again; its log is {_log(base)}, ending:\n"
                f"{_log_tail(base)}"
            )
        time.sleep(_POLL_SECONDS)
    return False


def _answers(url: str, base: Path) -> bool:
    """Whether the server at `url` is healthy and says that its state lies in `base`: a stranger does not."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    if guard := password(base):
        word = base64.b64encode(guard.encode()).decode()
        direct.addheaders.append(("Authorization", f"Basic {word}"))
    try:
        with direct.open(f"{url}/admin/settings", timeout=5) as response:
            settings = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            told = f"set {SERVER_AUTH} to the one that it was started with, or end it with `mgd server stop`"
            raise ServerError(f"the local Prefect server at {url} asks for another password: {told}") from None
        return False
    except (OSError, ValueError):  # refused, timed out, an HTTP error, or not JSON
        return False
    return isinstance(settings, dict) and Path(str(settings.get("home"))).resolve() == base


def _spawn(base: Path, port: int, services: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the server process, detached: a terminal's Ctrl-C or hang-up does not reach it.

    Its working directory is its own, where no `.env` or `prefect.toml` of the user's project is found.
    """
    with open(turned(_log(base)), "ab") as log:
        process = subprocess.Popen(
            server_command(port),
            cwd=base,
            env=server_environment(base, services),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _OURS.append(process)
    return process


# Popen objects of servers that outlive their caller: dropping one makes Python warn of a running child.
_OURS: list["subprocess.Popen[bytes]"] = []


def server_command(port: int) -> list[str]:
    """The command line that serves Prefect's API and web interface on a loopback port."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]


def _terminate(record: ServerRecord) -> None:
    for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        try:
            os.kill(record.pid, number)
        except ProcessLookupError:
            return
        while record.alive() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not record.alive():
            return
    raise ServerError(f"the local Prefect server (process {record.pid}) does not end, not even by SIGKILL")


def read_record(path: Path) -> ServerRecord | None:
    """The record, or None if there is none or it cannot be read (a half-written one cannot exist)."""
    try:
        return ServerRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(path: Path, record: ServerRecord) -> None:
    """Leave the record, whole."""
    staged = path.with_name(path.name + ".new")
    staged.write_text(json.dumps(asdict(record), indent=1) + "\n")
    os.replace(staged, path)


def _last_port(base: Path) -> int | None:
    """The port that the server had: pages that a browser knows, and its password, go by it."""
    try:
        return int((base / "port").read_text())
    except (OSError, ValueError):
        return None


def _free_port(wanted: int | None) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted or 0))
        except (OSError, OverflowError):
            probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _log(base: Path) -> Path:
    return logs_folder(base.parent) / "server.log"


def _log_tail(base: Path, lines: int = 15) -> str:
    try:
        return "\n".join(_log(base).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
