"""How fast a state moves between the tiers, for benchmarks.gpu, by the stores that a traversal uses.

host: device to pinned memory and back. The first save also pins its memory; later ones find it again. disk: host to a
file and back, digest and flush included; the file's pages are dropped from the cache before it is read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from benchmarks.gpu.meter import read
from benchmarks.gpu.models import scale, training
from benchmarks.gpu.sections import Bench, Finding
from mgd_core.engine.background import Background
from mgd_core.engine.disk_store import DiskStore
from mgd_core.engine.fingerprints import fingerprint
from mgd_core.engine.state_files import StateFiles
from mgd_core.engine.store import HostStore, each
from mgd_core.plans.actions import Tier
from mgd_core.training.optimizers import State

TIMES = 3


def transfers(bench: Bench) -> Iterator[Finding]:
    """MB (of 1e6 bytes) a second of saving and loading a state, for each tier."""
    sizes = scale(bench.device, bench.quick)
    state = training(sizes.model, sizes.batches[-1], bench.device).after
    yield Finding(f"a state of {state.nbytes / 1e6:,.1f} MB", {"state_bytes": state.nbytes})
    taken = min(read(lambda: fingerprint(state), bench.device).seconds for _ in range(2))
    yield Finding(f"fingerprint: {_rate(state, taken):,.0f} MB/s", {"fingerprint_mb_s": _rate(state, taken)})
    if bench.device.type == "cuda":
        yield from _host(state)
        state = each(state, lambda x: torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x))
    else:
        yield Finding("host: not used on a CPU", {"save_mb_s": {Tier.HOST: None}, "load_mb_s": {Tier.HOST: None}})
    with tempfile.TemporaryDirectory(dir=bench.disk) as directory:
        yield from _disk(state, Path(directory))


def _host(state: State) -> Iterator[Finding]:
    device = state.theta.device
    store, saves, loads = HostStore(), [], []
    for step in range(TIMES):
        saves.append(read(lambda: store.save(step, state), device).seconds)  # noqa: B023
        loads.append(read(lambda: store.load(step), device).seconds)  # noqa: B023
        store.free(step)
    rates = f"save {_rate(state, min(saves)):,.0f} MB/s (first {_rate(state, saves[0]):,.0f}), "
    figures = {"save_mb_s": {Tier.HOST: _rate(state, min(saves))}, "load_mb_s": {Tier.HOST: _rate(state, min(loads))}}
    yield Finding(f"host: {rates}load {_rate(state, min(loads)):,.0f} MB/s", figures)


def _disk(state: State, directory: Path) -> Iterator[Finding]:
    writer = Background()
    files = StateFiles(directory, "benchmark")
    store = DiskStore(files, writer)
    cpu, saves, loads = torch.device("cpu"), [], []

    def save(step: int) -> None:
        store.save(step, state)
        writer.flush()

    for step in range(TIMES):
        saves.append(read(lambda: save(step), cpu).seconds)  # noqa: B023
        for path in directory.glob("*.safetensors"):
            _drop(path)
        loads.append(read(lambda: store.load(step), cpu).seconds)  # noqa: B023
        store.free(step)
    store.close()
    writer.close()
    save_rate, load_rate = (_rate(state, median(seconds)) for seconds in (saves, loads))
    figures = {"save_mb_s": {Tier.DISK: save_rate}, "load_mb_s": {Tier.DISK: load_rate}}
    yield Finding(f"disk: save {save_rate:,.0f} MB/s, load {load_rate:,.0f} MB/s", figures)


def _drop(path: Path) -> None:
    """Let the system forget a file's pages, which are on the disk already."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _rate(state: State, seconds: float) -> float:
    return state.nbytes / 1e6 / seconds
