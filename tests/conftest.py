"""What all tests share: one scratch home, one thread a process, one local Prefect server for the session, and a process
that each test finds as the first one did.

The server is started by the first test that asks for `prefect_api`, whichever worker process it runs in:
`ensure_server` is made for that race. The process that started pytest stops it at the end.
"""

import fcntl
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flows.runtime import ensure_server, prepare_environment, stop_server

_HOME = "MGD_TEST_HOME"  # inherited by worker processes
LONGEST = (
    "test_curate", "test_rounds", "test_replay", "test_text_curation", "test_measuring", "test_session",
    "test_comparison", "test_field", "test_metaparameters", "test_journal", "test_boundaries", "test_pools",
    "test_sql_shell", "test_adapted_run", "test_studies", "test_remotes", "test_reshard", "test_census",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if not _is_worker(config):
        os.environ[_HOME] = tempfile.mkdtemp(prefix="mgd-tests-")
    # Read by torch when it is first imported, here or in a child: workers share the cores by processes.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PREFECT_API_URL", None)
    # Flow logs would be sent from a thread that outlives the server at the end of the session.
    os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = ""  # no password, but where a test is about it
    os.environ["MGD_PAGES_URL"] = ""  # one server of pages a home would outlive the tests
    os.environ["MGD_LOCKS"] = str(_home() / f"locks-{os.getpid()}")  # processes of the suite share no device
    prepare_environment(_home())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first: a worker takes a file at a time, and none should end with one of these."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"the same order again: --randomly-seed={config.getoption('randomly_seed', 'none')}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config):
        stop_server(_home())
        shutil.rmtree(_home(), ignore_errors=True)


@pytest.fixture(autouse=True)
def own_process() -> Iterator[None]:
    """Generators begin at the same numbers in every test, and they and the environment are as before at its end: no
    test depends on which ones ran before it."""
    torch = sys.modules.get("torch")  # not imported for tests that need none of it
    environment, states = dict(os.environ), (random.getstate(), np.random.get_state())
    drawn = torch.get_rng_state() if torch else None
    random.seed(0)
    np.random.seed(0)
    if torch:
        torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    if torch:
        torch.set_rng_state(drawn)
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)


@pytest.fixture(scope="session")
def server_home() -> Path:
    """The home of the session's local Prefect server; make other homes below `tmp_path`."""
    return _home()


@pytest.fixture(scope="session")
def curated_small(server_home: Path) -> Path:
    """The run directory of the small catalog, curated by plain calls once for all workers, in `home` below a place
    that has the catalog as well: to be read. A test that changes anything copies the place."""
    from testing.small_catalog import curate_plainly, small_catalog

    place = server_home / "curated-small"
    with (server_home / "curated-small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            place.mkdir()
            curate_plainly(small_catalog(place), place / "home")
            (place / "done").touch()
    (directory,) = (place / "home" / "runs").iterdir()
    return directory


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
