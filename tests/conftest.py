"""What all tests share: one scratch home, one thread a process, and one local Prefect server for the session.

The server is started by the first test that asks for `prefect_api`, whichever worker process it runs in:
`ensure_server` is made for that race. The process that started pytest stops it at the end.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.runtime import ensure_server, prepare_environment, stop_server

_HOME = "MGD_TEST_HOME"  # inherited by worker processes


def pytest_configure(config: pytest.Config) -> None:
    if not _is_worker(config):
        os.environ[_HOME] = tempfile.mkdtemp(prefix="mgd-tests-")
    # Read by torch when it is first imported, here or in a child: workers share the cores by processes.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PREFECT_API_URL", None)
    # Flow logs would be sent from a thread that outlives the server at the end of the session.
    os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
    prepare_environment(_home())


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config):
        stop_server(_home())
        shutil.rmtree(_home(), ignore_errors=True)


@pytest.fixture(scope="session")
def server_home() -> Path:
    """The home of the session's local Prefect server; make other homes below `tmp_path`."""
    return _home()


@pytest.fixture
def prefect_api(server_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The session's Prefect server, in PREFECT_API_URL: for every test that runs a flow or such a command."""
    url = ensure_server(server_home)
    monkeypatch.setenv("PREFECT_API_URL", url)
    yield url


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _home() -> Path:
    return Path(os.environ[_HOME])
