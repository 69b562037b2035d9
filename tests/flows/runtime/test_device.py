import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.runtime.device import free_device, lock_path
from tasks.catalog.device_options import device_in_hand
from tasks.catalog.recipe_options import RuntimeOptions
from tasks.files import progress
from tasks.modality.machine import devices_of

HOLDER = """
import sys
from flows.runtime.device import free_device
with free_device(sys.argv[1:], "a run") as taken:
    print(taken, flush=True)
    sys.stdin.read()
"""


def hold_elsewhere(*devices: str) -> "subprocess.Popen[str]":
    """Another process that has a device until its stdin closes or it is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *devices],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert holder.stdout is not None and holder.stdout.readline().strip() in devices
    return holder


@contextmanager
def told() -> Iterator[list[str]]:
    """What is said in the block."""
    said: list[str] = []
    progress.watch(lambda what, *_: said.append(what))
    try:
        yield said
    finally:
        progress.watch(None)


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGD_LOCKS", str(tmp_path / "locks"))


@pytest.mark.parametrize("end", ["politely", "SIGKILL"])
def test_waits_for_the_other_process_says_what_has_it_and_gets_the_device_at_its_end(end):
    holder = hold_elsewhere("cpu:0")
    waiting = threading.Event()
    said: list[str] = []

    def finish() -> None:
        assert waiting.wait(10)
        holder.send_signal(signal.SIGKILL) if end == "SIGKILL" else holder.stdin.close()

    threading.Thread(target=finish).start()
    progress.watch(lambda what, *_: (said.append(what), waiting.set()))  # type: ignore[func-returns-value]
    try:
        with free_device(["cpu:0"], "mine"):
            assert holder.wait(10) == (-signal.SIGKILL if end == "SIGKILL" else 0)
    finally:
        progress.watch(None)
    assert said == [f"cpu:0 is taken (process {holder.pid}, a run); waiting for a free device"]


def test_the_free_one_of_a_pool_is_taken_without_a_word_and_the_same_one_again():
    pool = ["cpu:0", "cpu:1"]
    holder = hold_elsewhere(*pool)
    with told() as said:
        for _ in range(2):
            with free_device(pool, "mine") as taken:
                assert taken == "cpu:1"
        holder.communicate("")
        with free_device(pool, "mine") as taken:
            assert taken == "cpu:1", "its recipe is open there"
    assert said == []


def test_two_of_a_pool_are_had_at_once_by_one_process():
    with free_device(["cpu:0", "cpu:1"], "one") as first, free_device(["cpu:0", "cpu:1"], "two") as second:
        assert {first, second} == {"cpu:0", "cpu:1"}


def test_recipes_are_opened_on_what_was_taken():
    runtime = RuntimeOptions.model_validate({"devices": ["cuda:2", "cuda:3"]})
    assert device_in_hand(runtime) == "cuda:2", "where none was taken"
    with free_device(["cuda:3"], "one"):
        assert device_in_hand(runtime) == "cuda:3"
    with free_device(["cpu:1"], "two"):
        assert device_in_hand(runtime) == "cpu", "as PyTorch calls it"


def test_one_file_a_device_of_this_host_whatever_the_home_and_however_it_is_shown(monkeypatch):
    assert lock_path("cuda") == lock_path("cuda:0") != lock_path("cuda:1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-a/b")
    assert lock_path("cuda:0").name == "cuda-3.lock" and lock_path("cuda:1").name == "cuda-GPU-a_b.lock"
    with pytest.raises(ValueError, match="device must look like"):
        lock_path("../cpu")


def test_locks_lie_below_the_users_cache_by_host(tmp_path, monkeypatch):
    monkeypatch.delenv("MGD_LOCKS")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("socket.gethostname", lambda: "a-host")
    assert lock_path("cpu:0") == tmp_path / ".cache" / "mgd" / "locks" / "a-host" / "cpu-0.lock"
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "scratch"))
    assert lock_path("cpu:0").is_relative_to(tmp_path / "scratch" / f"mgd-{os.getuid()}")


@pytest.mark.parametrize(
    ("said", "slots", "device", "runner"),
    [
        ({}, ("cpu:0",), "cpu", "threads"),
        ({"device": "cuda:1"}, ("cuda:1",), "cuda:1", "threads"),
        ({"device": "cpu:1"}, ("cpu:1",), "cpu", "threads"),
        ({"devices": ["cpu", "cpu"]}, ("cpu:0", "cpu:1"), "cpu", "processes"),
        ({"devices": ["cuda", "cuda:1"], "runner": "ray"}, ("cuda:0", "cuda:1"), "cuda", "ray"),
        ({"devices": "all"}, ("cuda:0",), "cuda", "processes"),
    ],
)
def test_a_catalogs_devices(said, slots, device, runner):
    found = RuntimeOptions.model_validate(said)
    assert (found.slots, found.device, found.runner.kind) == (slots, device, runner)
    assert RuntimeOptions.model_validate(found.model_dump(mode="json")) == found, "as a run's record has it"


def test_all_are_those_of_the_machine(monkeypatch):
    found = RuntimeOptions.model_validate({"devices": "all"})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert devices_of(found) == ("cuda:0", "cuda:1", "cuda:2")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"devices": []}, "devices"),
        ({"devices": ["cpu", "cuda"]}, "several kinds"),
        ({"devices": ["cuda", "cuda:0"]}, "named twice"),
        ({"devices": ["cpu", "cpu"], "runner": "threads"}, "threads of one process train one at a time.*processes"),
        ({"devices": ["cuda:1"], "device": "cpu"}, "say one of the two"),
        ({"devices": "every"}, "devices"),
        ({"devices": ["cuda;rm"]}, "a device is 'cpu'"),
    ],
)
def test_devices_that_cannot_be_are_refused(said, message):
    with pytest.raises(ValueError, match=message):
        RuntimeOptions.model_validate(said)
