"""The environment variables that Prefect must find before it is imported.

Prefect reads its settings once, at ``import prefect``: where its state lies, whether it reports usage to its
vendor, how loud it is. This module knows those variables and imports nothing but the standard library.

Two processes need them: ours, the client (:func:`prepare_environment`), and the local server that
:mod:`flows.runtime.server` starts (:func:`server_environment`). A user who has a Prefect server sets
``PREFECT_API_URL``; then nothing of theirs is changed but the telemetry and the noise.
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

# Both halves are needed: the first is read by the client, the second by the server.
TELEMETRY_OFF = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

# The console handler alone: PREFECT_LOGGING_LEVEL would also empty the log pages of the web interface. Errors too are
# left to those pages: the command line tells a failure once, in one message, where Prefect would print its traceback.
CONSOLE = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}

# What the local server leaves off, because a single user's machine has no use for it. Kept: the API, the
# web interface, the task run recorder (the history), the scheduler (`mgd serve --cron`), the clean-up after
# a cancelled run. Who wants workers, automations or the event feed runs a Prefect server of their own.
# Measured by `python -m benchmarks.server_cpu`.
LEAN_SERVICES = {
    # One transaction for up to a second's task runs, not one for each: most of the CPU of a task.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",  # most of what the database would grow by
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "120",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "10",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}

# The pages ask the server that they came from: Prefect would send them to port 4200, whatever its own is. So they work
# through a tunnel as well.
PAGES = {"PREFECT_UI_API_URL": "/api"}

LOOPBACK = "127.0.0.1"

# Prefect's own settings for the name and password (`name:password`) of its API: the server's, and its clients'. What a
# user sets as the first is the local server's; otherwise it has one of its home's own. An empty one leaves it open.
SERVER_AUTH, CLIENT_AUTH = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"


# torch's OpenMP threads otherwise spin while they wait for each other; on a machine with anything else to do, a step
# was seen to take ten times as long. Read once, when torch is first imported.
THREADS_WAIT = {"OMP_WAIT_POLICY": "PASSIVE"}

QUIET = TELEMETRY_OFF | CONSOLE | THREADS_WAIT


def quiet() -> None:
    """Switch off Prefect's telemetry and its console line a task, and let waiting threads sleep, unless the user set
    those variables."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def prefect_home(home: Path) -> Path:
    """The directory of the local Prefect server's state (absolute), below an `mgd` home."""
    return Path(home).resolve() / ".prefect"


def external_api_url() -> str | None:
    """The Prefect server that the user named in ``PREFECT_API_URL``, or None: then we run our own."""
    return os.environ.get("PREFECT_API_URL") or None


def prepare_environment(home: Path) -> None:
    """Set the variables for this process; call it before anything imports prefect.

    With ``PREFECT_API_URL`` set, ``PREFECT_HOME`` is left alone: the user's profile and key may lie there.
    """
    quiet()
    if external_api_url() is None:
        os.environ["PREFECT_HOME"] = str(prefect_home(home))
        _bypass_proxy_for_loopback()


def password(base: Path) -> str:
    """Name and password of the local server whose state lies in `base`, as a browser is to be told them; empty where
    it is open to everybody on this machine. Without it a stranger could start flows, which write files as the user."""
    if SERVER_AUTH in os.environ:
        return os.environ[SERVER_AUTH]
    try:
        return (base / "password").read_text().strip()
    except FileNotFoundError:
        return ""


def make_password(base: Path) -> None:
    """Give the server a password of its own, that its user alone can read, unless it has one."""
    path = base / "password"
    if SERVER_AUTH not in os.environ and not path.exists():
        staged = path.with_name("password.new")
        staged.unlink(missing_ok=True)
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"mgd:{secrets.token_urlsafe(12)}\n")
        os.replace(staged, path)


def server_environment(base: Path, services: Mapping[str, str] = LEAN_SERVICES) -> dict[str, str]:
    """The environment of a local server whose state lies in `base`.

    The user's own ``PREFECT_*`` variables, but for its password, do not reach it: a database or a port meant for
    another server would make it a different server than the one that this home owns.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    if word := password(base):
        inherited |= {SERVER_AUTH: word, CLIENT_AUTH: word}  # the second is for its services, which ask it as others do
    return inherited | TELEMETRY_OFF | dict(services) | {"PREFECT_HOME": str(base), **PAGES}


def _bypass_proxy_for_loopback() -> None:
    """Behind a proxy, Prefect's HTTP client would send even loopback requests to it."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if LOOPBACK not in hosts and "*" not in hosts:
            os.environ[name] = ",".join([*hosts, LOOPBACK])
