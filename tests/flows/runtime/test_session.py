"""Sessions on the real local server (one for the whole test run)."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from flows.runtime import prefect_session, record_session, server_status
from flows.runtime.session import SESSION_LABEL

ROOT = Path(__file__).parents[3]

# A command that is killed in the middle: three tasks, of which the last never ends.
CLIENT = """
import sys, time
from pathlib import Path
from flows.runtime import prefect_session, record_session
home, name = Path(sys.argv[1]), sys.argv[2]
with prefect_session(home):
    from prefect import flow, task

    @task
    def step(number):
        if number == 2:
            print("running", flush=True)
            time.sleep(120)

    @flow(name=name, on_running=[record_session])
    def job():
        for number in range(3):
            step.submit(number).result()

    job()
"""


def runs_of(name: str):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    with get_client(sync_client=True) as client:
        flow_filter = FlowFilter(name=FlowFilterName(any_=[name]))
        tasks = client.read_task_runs(flow_filter=flow_filter)
        return client.read_flow_runs(flow_filter=flow_filter), tasks


def wait_for_tasks(name: str, states: list[str]) -> None:
    """The server writes task runs a moment after it was told of them: wait for that."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        _, tasks = runs_of(name)
        if sorted(task.state.type.value for task in tasks) == states:
            return
        time.sleep(0.1)
    pytest.fail(f"task runs recorded: {[(task.name, task.state.name) for task in tasks]}, expected {states}")


def start_and_wait(home: Path, name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CLIENT, str(home), name]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert client.stdout is not None and client.stdout.readline() == "running\n"
    return client


def test_a_killed_clients_history_stays_and_the_next_start_marks_its_run_crashed(prefect_api, tmp_path):
    name = f"killed-{uuid.uuid4().hex[:8]}"
    client = start_and_wait(tmp_path, name)
    try:
        with prefect_session(tmp_path):
            [run], _ = runs_of(name)
            assert run.state.is_running(), "its process lives: nobody may call it dead"
            assert run.labels["mgd.pid"] == client.pid
            wait_for_tasks(name, ["COMPLETED", "COMPLETED", "RUNNING"])
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait()
    with prefect_session(tmp_path / "another home"):
        [run], _ = runs_of(name)
        assert run.state.is_running(), "another home does not know, so it does not judge"
    with prefect_session(tmp_path):
        [run], _ = runs_of(name)
        assert run.state.is_crashed()
        assert str(client.pid) in run.state.message
        wait_for_tasks(name, ["COMPLETED", "COMPLETED", "CRASHED"])


def test_a_session_starts_nothing_where_the_user_names_a_server(prefect_api, tmp_path):
    with prefect_session(tmp_path) as url:
        assert url == prefect_api
    assert not (tmp_path / ".prefect").exists()


def test_a_named_server_that_does_not_answer_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    with (
        pytest.raises(ConnectionError, match=r"PREFECT_API_URL is http://127\.0\.0\.1:9/api.*unset the var"),
        prefect_session(tmp_path),
    ):
        pass


def test_without_a_named_server_the_homes_own_has_the_runs(prefect_api, server_home, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL")
    name = f"embedded-{uuid.uuid4().hex[:8]}"
    started = time.monotonic()
    with prefect_session(server_home) as url:
        from prefect import flow

        @flow(name=name, on_running=[record_session])
        def job() -> int:
            return 7

        assert url == prefect_api
        assert job() == 7
        [run], _ = runs_of(name)
        assert run.state.is_completed()
        assert SESSION_LABEL in run.labels
    assert time.monotonic() - started < 20
    assert not list((server_home / ".locks/sessions").glob("*.session"))


def test_the_server_schedules_what_is_served_with_a_cron(prefect_api, tmp_path):
    """Prefect's scheduler inserts runs in bulk, which SQLAlchemy 2.1 refuses: see pyproject.toml."""
    with prefect_session(tmp_path):
        from prefect import flow
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import DeploymentScheduleCreate
        from prefect.client.schemas.schedules import CronSchedule

        name = f"nightly-{uuid.uuid4().hex[:8]}"

        @flow(name=name)
        def job() -> None:
            pass

        with get_client(sync_client=True) as client:
            nightly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 * * *", timezone="UTC"))
            flow_id = client.create_flow(job)
            deployment = client.create_deployment(flow_id=flow_id, name=name, schedules=[nightly])
            deadline = time.monotonic() + 30
            while not runs_of(name)[0] and time.monotonic() < deadline:
                time.sleep(0.2)
            runs, _ = runs_of(name)
            client.delete_deployment(deployment)
        assert runs and all(run.state.is_scheduled() for run in runs)


def test_outside_a_session_the_hook_does_nothing():
    record_session(None, None, None)  # type: ignore[arg-type]


def test_the_server_reports_to_nobody(prefect_api, server_home):
    settings = json.loads(urllib.request.urlopen(f"{prefect_api}/admin/settings").read())
    assert settings["server"]["analytics_enabled"] is False
    assert settings["server"]["api"]["host"] == "127.0.0.1"
    pid = server_status(server_home).pid
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    assert "DO_NOT_TRACK=1" in environment
    assert remote_addresses(pid) <= {"0100007F", "00000000"}, "connected to another host than 127.0.0.1"
    assert remote_addresses(os.getpid()) <= {"0100007F", "00000000"}


def remote_addresses(pid: int | None) -> set[str]:
    """The far ends of a process's IPv4 TCP sockets, as the kernel writes them (hexadecimal, reversed)."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {row[2].split(":")[0] for row in rows if row[9] in inodes}
