"""What a training needs of the machine: a home that can be written to, and its device."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from mgd_core.errors import UserError
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


def check_device(device: str) -> None:
    """See that the device is there; raises CatalogError."""
    try:
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises what it likes: AssertionError, RuntimeError, NotImplementedError
        n = torch.cuda.device_count()
        there = f"'cuda:0' to 'cuda:{n - 1}', and 'cpu'" if n else "'cpu' only"
        raise CatalogError(
            f"runtime.device = '{device}': there is no such device on this machine, which has {there} "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
