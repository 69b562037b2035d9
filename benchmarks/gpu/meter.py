"""Seconds and peak memory of a call, on a GPU or a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

MIB = 2**20


class Reading(NamedTuple):
    """What a call returned, its seconds, and the MiB that it held at its peak beyond those before it."""

    value: Any
    seconds: float
    peak_mib: float


def read(call: Callable[[], Any], device: torch.device) -> Reading:
    """Run ``call`` once, from an idle device to an idle device."""
    cuda = device.type == "cuda"
    before = _settled(cuda)
    began = time.perf_counter()
    value = call()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() / MIB if cuda else _resident("VmHWM")
    return Reading(value, seconds, peak - before)


def _settled(cuda: bool) -> float:
    """Begin a new high-water mark; returns the MiB in use."""
    gc.collect()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / MIB
    with contextlib.suppress(OSError, AttributeError):  # glibc only: give freed memory back
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))) / 1024


def release(device: torch.device) -> None:
    """Give up what failed calls may have left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
