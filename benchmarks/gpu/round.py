"""A round of DataComp-small on this device, from what benchmarks.gpu measured.

DataComp's small scale (Gadre et al. 2023, arXiv 2304.14108): ViT-B/32, batch 4096, 12.8 M samples seen, so T = 3125,
and a pool of 12.8 M. As in metagradient descent's data selection (Engstrom et al. 2025, arXiv 2503.13751), candidates
join at k = 2800, and a round probes the share p = 0.2 of the pool that its mask leaves. Reading and decoding are not in
it, nor is the evaluation of the target.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu.sections import Bench, Finding
from mgd_core.plans.actions import Tier
from mgd_core.plans.planning import Rates, auto

STEPS, START, BATCH = 3125, 2800, 4096
POOL, MASK = 12_800_000, 0.2
HOST_SHARE, DISK_SHARE = 0.7, 0.8  # of what is free, for kept states
SPARE = 3  # states: two on their way between tiers, and one replaced while its successor is made


def projection(bench: Bench) -> Iterator[Finding]:
    """Hours of a round for each precision, by the cheapest plan."""
    names = ("step_s", "reverse_s", "probe_samples_per_s", "reverse_peak_mib", "batch", "state_bytes")
    bench.needed(*names)
    measured = {"float32": bench.found} | bench.found.get("precisions", {})
    for name, figures in measured.items():
        if figures.get("probe_samples_per_s"):
            yield _round(bench, name, figures)
    hours = bench.found["projected"]["float32"]["hours"]
    yield Finding(f"a round in float32: {hours:,.1f} hours", {"projected_round_hours": hours})


def _round(bench: Bench, name: str, figures: dict[str, Any]) -> Finding:
    found, size = bench.found, bench.found["state_bytes"]
    scaled = BATCH / found["batch"]
    save, load = ({t: size / 1e6 / r for t, r in found.get(key, {}).items() if r} for key in ("save_mb_s", "load_mb_s"))
    rates = Rates(figures["step_s"] * scaled, figures["reverse_s"] * scaled, save, load, bench.device.type == "cuda")
    held = figures["reverse_peak_mib"] * 2**20 + SPARE * size
    budgets = {tier: b for tier, b in _budgets(bench, held, size).items() if tier is Tier.DEVICE or tier in save}
    best = auto(START, STEPS, size, budgets, rates)
    probe = MASK * POOL / figures["probe_samples_per_s"]
    train = STEPS * rates.step
    hours = {"train": train / 3600, "reverse": (best.seconds - train) / 3600, "probe": probe / 3600}
    total = sum(hours.values())
    text = f"{name}: {total:,.1f} hours = " + " + ".join(f"{what} {h:,.1f}" for what, h in hours.items())
    return Finding(f"{text}; {best}", {"projected": {name: {"hours": total, **hours, "plan": str(best)}}})


def _budgets(bench: Bench, held: float, state: int) -> dict[Tier, int]:
    """Bytes for kept states on each tier, when a reverse step takes ``held``; room for one state at least."""
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * HOST_SHARE
    disk = shutil.disk_usage(bench.disk).free * DISK_SHARE
    if bench.device.type == "cuda":
        device = torch.cuda.get_device_properties(bench.device).total_memory * 0.95 - held
        return {Tier.DEVICE: max(state, int(device)), Tier.HOST: int(host), Tier.DISK: int(disk)}
    return {Tier.DEVICE: max(state, int(host - held)), Tier.DISK: int(disk)}
