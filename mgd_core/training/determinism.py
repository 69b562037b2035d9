"""The settings under which a step gives the same bits every time, and their restoration.

Bits depend on thread count, device, dtype and library versions; ``environment()`` names them so that a run can refuse
to go on under others. That a step does give the same bits is checked by mgd_core.engine.guard.
"""

from __future__ import annotations

import os
import platform
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgd_core.training.allocator import keep_freed_memory

_ALONE = threading.RLock()
_MEMORY: Any = torch.utils.deterministic  # its one setting is made at import, where no type checker sees it


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Deterministic kernels only, ``threads`` CPU threads, attention by its definition (the MATH backend).

    Global flags and ambient RNG (torch's of every device, numpy's, Python's) are as before on exit, whatever the block
    changed of them. They are the process's, so a second thread waits until the first has left: one that restored them
    while another draws its initial parameters would give it others. Freed memory stays with the process from then on
    (mgd_core.training.allocator).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first call
    with _ALONE, ambient_rng(), _global_flags():
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False  # it picks a kernel by time, so another one in another process
        # PyTorch would fill all new memory with NaN; nothing here reads what it did not write, and the guard compares.
        _MEMORY.fill_uninitialized_memory = False
        torch.set_num_threads(threads)
        keep_freed_memory()
        with sdpa_kernel(SDPBackend.MATH):
            yield


@contextmanager
def _global_flags() -> Iterator[None]:
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads, precision, cudnn = torch.get_num_threads(), _matmul_precision(), torch.backends.cudnn
    benchmark, limited, filled = cudnn.benchmark, cudnn.deterministic, _MEMORY.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        torch.set_num_threads(threads)
        cudnn.benchmark, cudnn.deterministic, _MEMORY.fill_uninitialized_memory = benchmark, limited, filled
        if precision is not None and precision != _matmul_precision():
            torch.set_float32_matmul_precision(precision)


def _matmul_precision() -> str | None:
    """How float32 matrices are multiplied; None where the program around us sets it by torch's newer switches."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


@contextmanager
def ambient_rng() -> Iterator[None]:
    """Restores the ambient generators: torch's of every device in use, numpy's, Python's."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    pythons, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(pythons)
            np.random.set_state(numpys)


def environment(device: str, threads: int) -> dict[str, str | int]:
    """What the bits of a run depend on besides its catalog; on which of several equal devices it runs, they do not."""
    return {
        "torch": torch.__version__,
        "device": device.partition(":")[0],
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
    }
