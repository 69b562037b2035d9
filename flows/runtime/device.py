"""One long-lived worker per device: an flock on a file per device.

Prefect's concurrency limits were measured and set aside for this: a slot held by a killed process blocks
the next one for minutes, and for ever if the server was restarted too. The kernel frees an flock with its
holder's last descriptor. It is local to one host and one home; on a cluster the task runner assigns devices.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.runtime.locks import exclusive
from mgd_core.errors import UserError


class DeviceError(UserError, ValueError):
    """No device is called so."""


_log = logging.getLogger("mgd.runtime")


def lock_path(home: Path, device: str) -> Path:
    """Where the lock of `device` ("cpu", "cuda", "cuda:1", ...) lies; "cuda" is "cuda:0"."""
    name = "cuda:0" if device == "cuda" else device
    if not re.fullmatch(r"[a-z]+(:\d+)?", name):
        raise DeviceError(f"device must look like 'cpu' or 'cuda:1', got {device!r}")
    return Path(home) / ".locks" / f"{name.replace(':', '-')}.lock"


@contextmanager
def device_lock(home: Path, device: str, *, say: Callable[[str], None] = _log.warning) -> Iterator[None]:
    """Have `device` to ourselves for the block; wait for whoever has it.

    `say` gets one sentence that names the holder's pid before the wait begins. Ctrl-C ends the wait. Do not
    nest it for the same device: the inner one would wait for the outer.
    """

    def on_wait(holder: str) -> None:
        say(f"{device} is in use by process {holder or '(unknown)'} of this home; waiting for it to finish")

    with exclusive(lock_path(home, device), note=str(os.getpid()), on_wait=on_wait):
        yield
