"""The last line of every benchmark: one JSON object with its figures and what they were measured with."""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "torchvision", "open_clip_torch", "prefect", "duckdb", "pyarrow", "numpy")


def emit(name: str, figures: dict[str, Any]) -> None:
    """Print `figures` with the benchmark's name, versions, threads, machine and commit as one line of JSON.

    Call it last. A figure may not use one of the envelope's own keys.
    """
    envelope = {
        "benchmark": name,
        "versions": versions(),
        "threads": threads(),
        "machine": machine(),
        "commit": commit(),
    }
    taken = sorted(envelope.keys() & figures.keys())
    if taken:
        raise ValueError(f"benchmark {name!r}: the figures {taken} have names of the envelope; rename them")
    print(json.dumps(figures | envelope), flush=True)


def versions() -> dict[str, str]:
    """Python and the packages that a figure may depend on, as installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def threads() -> int:
    """Threads that torch computes with, or the cores at hand where the benchmark did not load torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return len(os.sched_getaffinity(0))
    return int(torch.get_num_threads())


def machine() -> dict[str, Any]:
    """The processor, the cores at hand and the memory in GiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    model = next((value.strip() for key, value in fields.items() if key.strip() == "model name"), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory, 1)}


def commit() -> str:
    """The checked-out commit, and "+changes" where the working tree differs; "unknown" outside git."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[1]
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
