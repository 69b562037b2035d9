"""What a training needs of the machine: a home that can be written to, and its device, one of a pool perhaps."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from mgd_core.errors import UserError
from tasks.catalog.device_options import DeviceSection, torch_device
from tasks.catalog.files import CatalogError


class HomeError(UserError, OSError):
    """The directory of all runs cannot be written to."""


def check_home(home: Path) -> None:
    """See that files can be written in ``home``, which is made if it is not there; raises HomeError."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"x")
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise HomeError(f"--home {home}: cannot be written to ({told}); name another directory") from error


def check_devices(runtime: DeviceSection) -> None:
    """See that the devices are there; raises CatalogError."""
    n = torch.cuda.device_count()
    there = f"'cuda:0' to 'cuda:{n - 1}', and 'cpu'" if n else "'cpu' only"
    for device in devices_of(runtime):
        try:
            torch.zeros(1, device=torch_device(device))
        except Exception as error:  # torch raises what it likes: AssertionError, RuntimeError, NotImplementedError
            said = "all" if runtime.devices == "all" else device
            raise CatalogError(
                f"runtime.device = '{said}': there is no such device on this machine, which has {there} "
                f"({str(error).splitlines()[0][:200]})"
            ) from error


def devices_of(runtime: DeviceSection) -> tuple[str, ...]:
    """The devices of a pool, each with its number; of `"all"`, those that this machine has."""
    if runtime.devices == "all":
        return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or runtime.slots
    return runtime.slots
