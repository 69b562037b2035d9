"""The settings under which a step gives the same bits every time, and their restoration.

Bits depend on thread count, device, dtype and library versions; ``environment()`` names them so that a run can refuse
to go on under others.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Deterministic kernels only, ``threads`` CPU threads, attention by its definition (the MATH backend).

    Global flags and ambient RNG are as before on exit.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads_before, rng = torch.get_num_threads(), torch.get_rng_state()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first call
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.set_num_threads(threads_before)
        torch.set_rng_state(rng)


def environment(device: str, threads: int) -> dict[str, str | int]:
    """What the bits of a run depend on besides its catalog."""
    return {
        "torch": torch.__version__,
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
    }
