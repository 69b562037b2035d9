import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.runtime.device import device_lock, lock_path

HOLDER = """
import sys, time
from pathlib import Path
from flows.runtime.device import device_lock
with device_lock(Path(sys.argv[1]), "cpu"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold_elsewhere(home: Path) -> "subprocess.Popen[str]":
    """Another process that has the device until its stdin closes or it is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


@pytest.mark.parametrize("end", ["politely", "SIGKILL"])
def test_waits_for_the_other_process_names_it_and_gets_the_device_at_its_end(tmp_path, end):
    holder = hold_elsewhere(tmp_path)
    said: list[str] = []
    waiting = threading.Event()

    def say(sentence: str) -> None:
        said.append(sentence)
        waiting.set()

    def finish() -> None:
        assert waiting.wait(10)
        holder.send_signal(signal.SIGKILL) if end == "SIGKILL" else holder.stdin.close()

    threading.Thread(target=finish).start()
    with device_lock(tmp_path, "cpu", say=say):
        assert holder.wait(10) == (-signal.SIGKILL if end == "SIGKILL" else 0)
    assert said == [f"cpu is in use by process {holder.pid} of this home; waiting for it to finish"]


def test_a_free_device_is_had_at_once_and_again(tmp_path):
    said: list[str] = []
    for _ in range(2):
        with device_lock(tmp_path, "cuda", say=said.append), device_lock(tmp_path, "cuda:1", say=said.append):
            pass
    assert said == []


def test_one_file_a_device():
    home = Path("home")
    assert lock_path(home, "cuda") == lock_path(home, "cuda:0") != lock_path(home, "cuda:1")
    with pytest.raises(ValueError, match="device must look like"):
        lock_path(home, "../cpu")
