"""Whoever starts a flow, it runs alike: bounded tasks, faults that pass tried again, sessions, and words in the log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.runtime.run_page import Stopped
from tasks.files import progress
from tasks.files.remotes import RemoteFault
from testing.open_ports import on_loopback, open_ports
from testing.small_catalog import small_catalog

ROOT = Path(__file__).parents[2]


@pytest.fixture
def as_in_a_worker(prefect_api: str) -> Iterator[None]:
    """Prefect's settings name the server, as in a worker's process, and no command has begun a session."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def client():
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def test_a_plain_call_has_the_catalogs_runner_a_session_and_its_words_in_the_log(
    as_in_a_worker: None, tmp_path: Path
) -> None:
    from prefect.context import FlowRunContext

    from flows.runtime.operating import stage, tagged, unit

    at_once, most, ids = [], [], []

    @unit("step", "step {number}")
    def step(number: int) -> None:
        at_once.append(number)
        most.append(len(at_once))
        time.sleep(0.05)
        at_once.remove(number)

    @stage("probe")
    def probe(catalog: str, home: str = "runs", overrides: dict | None = None) -> str:
        context = FlowRunContext.get()
        ids.append(context.flow_run.id)
        with tagged("a-run", "small"):
            for future in step.map(range(6)):
                future.result()
        assert list((Path(home) / ".locks" / "sessions").glob("*.session"))
        return type(context.task_runner).__name__

    catalog = str(small_catalog(tmp_path))
    probe(catalog, str(tmp_path / "home"))
    assert max(most) == 1
    probe(catalog, str(tmp_path / "home"), {"runtime.workers": 3})
    assert max(most) == 3, "Prefect's own runner in a worker has no limit"
    assert not list((tmp_path / "home" / ".locks" / "sessions").glob("*.session"))
    log = (tmp_path / "home" / "logs" / "mgd.log").read_text()
    assert log.count("step 5: Finished in state Completed()") == 2 and "mgd" not in os.environ.get("MGD_LOGS", "")
    with client() as asked:
        run = asked.read_flow_run(ids[0])
    assert {"a-run", "small"} <= set(run.tags) and run.labels["mgd.pid"] == os.getpid()
    assert run.name == f"probe {catalog}"


def test_only_what_may_pass_is_tried_again(
    as_in_a_worker: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.runtime import operating

    monkeypatch.setattr(operating, "FIRST_WAIT", 0)
    tried: list[str] = []

    @operating.unit("read")
    def read(fault: Exception) -> str:
        tried.append(type(fault).__name__)
        if len(tried) % 3:
            raise fault
        return "read"

    @operating.stage("reading")
    def reading(name: str, home: str = "runs") -> str:
        return read.submit(FAULTS[name]).result()

    FAULTS = {
        "store": RemoteFault("503"),
        "disk": OSError(5, "I/O"),
        "mistake": ValueError("no"),
        "full": OSError(28, ""),
    }
    for name in ("store", "disk"):
        assert reading(name, str(tmp_path)) == "read" and len(tried) == 3, name
        tried.clear()
    for name in ("mistake", "full"):
        with pytest.raises(type(FAULTS[name])):
            reading(name, str(tmp_path))
        assert len(tried) == 1, name
        tried.clear()


def test_what_trains_in_a_thread_ends_when_its_run_does(as_in_a_worker: None, tmp_path: Path) -> None:
    from flows.runtime.operating import stage, unit

    began, ended = threading.Event(), []

    @unit("train")
    def train() -> None:
        try:
            for number in range(6000):
                began.set()
                progress.announce("train", number, 6000)
                time.sleep(0.01)
        except Stopped as stopped:
            ended.append(str(stopped))
            raise

    @stage("cut")
    def cut(name: str, home: str = "runs") -> str:
        train.submit()
        assert began.wait(20)
        raise KeyboardInterrupt

    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cut("off", str(tmp_path))
    assert "train: the run is ending" in ended[0] and time.monotonic() - since < 15
    assert progress.watching() is None


def test_no_more_tasks_are_submitted_than_are_under_way(as_in_a_worker: None, tmp_path: Path) -> None:
    from flows.runtime.in_flight import in_flight
    from flows.runtime.operating import stage, unit

    begun: list[int] = []

    @unit("count", "number {number}")
    def count(number: int, plus: int) -> int:
        return number + plus

    def numbers() -> Iterator[int]:
        for number in range(10):
            begun.append(number)
            yield number

    @stage("counting")
    def counting(name: str, home: str = "runs") -> str:
        found = in_flight(count, numbers(), 100, at_once=3)
        assert next(found) == 100 and len(begun) == 4, "no more than three of them are not ended"
        return str([100, *found])

    assert counting("ten", str(tmp_path)) == str([*range(100, 110)])


def test_the_flow_reshards_to_the_bytes_of_the_command(
    as_in_a_worker: None, curated_small: Path, tmp_path: Path
) -> None:
    from flows.cli import main
    from flows.reshard import reshard

    (pool,) = (curated_small.parents[1] / "pools").iterdir()
    home, catalog = str(tmp_path / "home"), str(small_catalog(tmp_path))
    words = ["--out", str(tmp_path / "command"), "--shard-size", "50", "--workers", "1", "--home", home]
    assert main(["reshard", str(pool), *words]) == 0
    reshard(str(pool), str(tmp_path / "flow"), home, shard_size=50, catalog=catalog)
    made = [{p.name: p.read_bytes() for p in sorted((tmp_path / name).iterdir())} for name in ("command", "flow")]
    assert made[0] == made[1] and len(made[0]) > 5


def test_every_stage_is_deployed_with_parameters_that_say_what_they_are() -> None:
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    described = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {one["name"] for one in described}
    assert names == {"nightly", "shard", "curate", "census", "evaluate", "reshard", "export", "submit-folder", "score"}
    for one in described:
        flow = load_flow_from_entrypoint(str(ROOT / one["entrypoint"]))
        assert flow.name == one["name"]
        fields = parameter_schema(flow).model_dump()["properties"]
        assert set(one["parameters"]) <= set(fields)
        assert not [name for name, field in fields.items() if not field.get("description")], one["name"]


def test_a_second_flow_of_a_run_waits_for_the_first(curated_small: Path, tmp_path: Path) -> None:
    from flows.pool_building import only_flow
    from tasks.runs.run import Run

    run, said, order = Run.load(curated_small), [], []
    told = threading.Event()

    def watch(what: str, *_: int) -> None:
        said.append(what)
        told.set()

    def second() -> None:
        with only_flow(run):
            order.append("second")

    progress.watch(watch)
    try:
        with only_flow(run):
            waiting = threading.Thread(target=second)
            waiting.start()
            assert told.wait(10)
            order.append("first")
        waiting.join(10)
    finally:
        progress.watch(None)
    assert order == ["first", "second"]
    assert said == [f"run {run.id} is worked on by process {os.getpid()}; waiting until that one ends"]


def test_the_template_of_an_automation_is_one() -> None:
    from prefect.events.schemas.automations import AutomationCore

    template = AutomationCore.model_validate(yaml.safe_load((ROOT / "docs" / "failed-runs.yaml").read_text()))
    assert "prefect.flow-run.Failed" in template.trigger.expect


@pytest.mark.parametrize(
    "kind", ["processes", pytest.param("ray", marks=pytest.mark.slow), pytest.param("dask", marks=pytest.mark.slow)]
)
def test_several_devices_are_taken_side_by_side_and_nothing_listens_to_other_machines(
    as_in_a_worker: None, tmp_path: Path, kind: str
) -> None:
    from flows.runtime.device import free_device
    from flows.runtime.operating import stage, unit

    if kind != "processes":
        pytest.importorskip(f"prefect_{kind}", reason=f"prefect-{kind} is not installed: pip install 'mgd[{kind}]'")

    @unit("train", "train {number}")
    def train(place: Path, number: int) -> tuple[str, int]:
        """Leaves when the other has come: neither ends unless both have a device at one time."""
        with free_device(["cpu:0", "cpu:1"], place) as device:
            (place / str(number)).touch()
            until = time.monotonic() + 120
            while not (place / str(1 - number)).exists():
                assert time.monotonic() < until, "the other one waits for the device of this one"
                time.sleep(0.01)
            return device, os.getpid()

    @stage("side-by-side")
    def side_by_side(catalog: str, home: str = "runs", overrides: dict | None = None) -> str:
        futures = [train.submit(tmp_path, number) for number in range(2)]
        ended = [future.result() for future in futures]
        assert {device for device, _ in ended} == {"cpu:0", "cpu:1"}
        assert open_ports(f"MGD_TEST_HOME={os.environ['MGD_TEST_HOME']}") == set()
        return str(len({pid for _, pid in ended} - {os.getpid()}))

    how = {"runtime.devices": ["cpu", "cpu"], **({} if kind == "processes" else {"runtime.runner": kind})}
    assert side_by_side(str(small_catalog(tmp_path)), str(tmp_path / "home"), how) == "2"


def test_what_listens_to_other_machines_is_seen() -> None:
    listen = (
        "import socket, sys\nheld = [socket.create_server(('0.0.0.0', 0)), socket.create_server(('127.0.0.1', 0))]\n"
        "print(*[f'{one.getsockname()[1]:04X}' for one in held], flush=True)\nsys.stdin.read()"
    )
    environment = {**os.environ, "MARKED": "mgd-test"}
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    child = subprocess.Popen([sys.executable, "-c", listen], **how)
    everywhere, _ = child.stdout.readline().split()
    name = Path(f"/proc/{child.pid}/comm").read_text().strip()
    assert open_ports("MARKED=mgd-test") == {f"tcp 00000000:{everywhere} {name}"}
    child.communicate("")
    assert on_loopback("0100007F") and on_loopback("0000000000000000FFFF00000100007F") and not on_loopback("0" * 32)
