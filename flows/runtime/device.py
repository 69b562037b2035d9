"""Devices taken in turn: an flock on a file per device, wherever the home is.

Prefect's concurrency limits were measured and set aside for this: a slot held by a killed process blocks
the next one for minutes, and for ever if the server was restarted too. The kernel frees an flock with its
holder's last descriptor. The files lie below the user's own directory, by the host's name: homes on one host
take turns on its devices, and hosts that share a home do not wait for each other.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.runtime.locks import try_lock
from mgd_core.errors import UserError
from tasks.catalog.device_options import on_device
from tasks.files.progress import say

LOCKS = "MGD_LOCKS"
"""The variable that names another directory for the locks of this host's devices."""
POLL = 0.05  # seconds between two looks for a free device

_last = ""  # the device that this process had before, whose recipe is open


class DeviceError(UserError, ValueError):
    """No device is called so."""


def lock_path(device: str) -> Path:
    """Where the lock of `device` ("cpu:0", "cuda:1", ...) lies; "cuda" is "cuda:0", the first that is visible."""
    kind, _, number = device.partition(":")
    if not re.fullmatch(r"[a-z]+(:\d+)?", device):
        raise DeviceError(f"device must look like 'cpu' or 'cuda:1', got {device!r}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if kind == "cuda" else []
    physical = dict(enumerate(visible)).get(int(number or 0), number or "0").strip() or "0"
    return _folder() / f"{kind}-{re.sub('[^A-Za-z0-9-]', '_', physical)}.lock"


@contextmanager
def free_device(devices: Sequence[str], what: object) -> Iterator[str]:
    """Have one of `devices` to ourselves for the block, in which recipes are opened on it; wait where all are taken.

    `what` it is taken for stands in the message of whoever waits. Ctrl-C ends the wait. Do not nest it with a device
    that is held: the inner one would wait for the outer.
    """
    global _last
    told = False
    while (found := _first_free(sorted(devices, key=lambda device: device != _last))) is None:
        if not told:
            told = True
            say(f"{', '.join(f'{one} is taken ({_holder(one)})' for one in devices)}; waiting for a free device")
        time.sleep(POLL)
    descriptor, taken = found
    _last = taken
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, {what}".encode(), 0)
        with on_device(taken):
            yield taken
    finally:
        os.close(descriptor)


@contextmanager
def each_device(devices: Sequence[str], what: object) -> Iterator[None]:
    """Have all of `devices` to ourselves for the block. Whoever else wants several waits in the same order."""
    with ExitStack() as taken:
        for device in sorted(devices):
            taken.enter_context(free_device([device], what))
        yield


def _first_free(devices: Sequence[str]) -> tuple[int, str] | None:
    for device in devices:
        descriptor = try_lock(lock_path(device))
        if descriptor is not None:
            return descriptor, device
    return None


def _holder(device: str) -> str:
    return lock_path(device).read_text(errors="replace").strip() or "unknown"


def _folder() -> Path:
    """``MGD_LOCKS``, or below the user's cache; where that cannot be written, below the directory for scratch files."""
    if os.environ.get(LOCKS):
        return Path(os.environ[LOCKS])
    for base in (Path("~/.cache").expanduser(), Path(tempfile.gettempdir(), f"mgd-{os.getuid()}")):
        folder = base / "mgd" / "locks" / socket.gethostname()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise DeviceError(f"no lock of a device can be left in {folder}; name a directory of this host in {LOCKS}")
