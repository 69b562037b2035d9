import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.runtime.environment import prepare_environment, server_environment


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """An environment of PATH only, that the functions under test may write to; `own_process` restores it."""
    for name in set(os.environ) - {"PATH"}:
        monkeypatch.delenv(name)


def test_our_own_server_gets_its_state_below_the_home(tmp_path):
    prepare_environment(tmp_path)
    assert os.environ["PREFECT_HOME"] == str(tmp_path / ".prefect")
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "CRITICAL"


def test_a_users_server_keeps_the_users_prefect_home_and_noise(tmp_path):
    os.environ["PREFECT_API_URL"] = "http://example.org/api"
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "DEBUG"
    prepare_environment(tmp_path)
    assert "PREFECT_HOME" not in os.environ
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "DEBUG"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_a_proxy_is_bypassed_for_loopback_only(tmp_path):
    os.environ |= {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "intranet"}
    prepare_environment(tmp_path)
    prepare_environment(tmp_path)
    assert os.environ["NO_PROXY"] == "intranet,127.0.0.1"
    assert os.environ["HTTP_PROXY"] == "http://proxy:3128"


def test_the_servers_environment_has_none_of_the_users_prefect_settings(tmp_path):
    os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = "postgresql://theirs"
    os.environ |= {"DO_NOT_TRACK": "0", "LANG": "C"}
    environment = server_environment(tmp_path)
    assert "PREFECT_API_DATABASE_CONNECTION_URL" not in environment
    assert environment["LANG"] == "C"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["PREFECT_HOME"] == str(tmp_path)


def test_importing_the_runtime_imports_no_orchestrator_and_switches_telemetry_off():
    code = (
        "import os, sys, flows.runtime; print(os.environ['DO_NOT_TRACK'], "
        "[name for name in ('prefect', 'ray', 'dask', 'torch', 'duckdb') if name in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "1 []"
