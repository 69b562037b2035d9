"""Where and how flows run: the local Prefect server, a command's session, task runners, devices.

Nothing here imports prefect, ray or dask before it is called: ``mgd --help`` and ``mgd sql`` stay quick.
"""

from flows.runtime.environment import prepare_environment
from flows.runtime.runners import make_runner, run_flow
from flows.runtime.server import ServerError, ServerStatus, ensure_server, server_status, stop_server
from flows.runtime.session import history_lost, prefect_session, record_session

__all__ = [
    "ServerError",
    "ServerStatus",
    "ensure_server",
    "history_lost",
    "make_runner",
    "prefect_session",
    "prepare_environment",
    "record_session",
    "run_flow",
    "server_status",
    "stop_server",
]
