"""Groups of gloo ranks on this machine: a function run by W processes that are one process group."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mgd_core.ranks.ranks import GroupRanks
from testing.children import CHILDREN

SECONDS = 240
"""A collective or a group that takes longer has lost a rank."""


def on_ranks(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``work(ranks, *arguments)`` returns on every rank; ``work`` and what it takes and gives are pickled.

    Raises:
        RuntimeError: a rank failed; with its traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = [
            CHILDREN.Process(target=_run, args=(folder, count, rank, work, arguments), daemon=True)
            for rank in range(count)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(SECONDS)
        failed = [path.read_text() for path in sorted(Path(folder).glob("error-*"))]
        lost = [process for process in started if process.exitcode != 0]
        for process in lost:
            process.kill()
        if failed or lost:
            raise RuntimeError("\n".join(failed) or f"{len(lost)} of {count} ranks ended without a word")
        return [torch.load(Path(folder, f"result-{rank}"), weights_only=False) for rank in range(count)]


def _run(folder: str, count: int, rank: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        store = dist.FileStore(str(Path(folder, "rendezvous")), count)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timedelta(seconds=SECONDS))
        torch.save(work(GroupRanks(), *arguments), Path(folder, f"result-{rank}"))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        Path(folder, f"error-{rank}").write_text(traceback.format_exc())
        raise


def processes(place: str) -> dict[str, list[int]]:
    """Agents and ranks whose scratch directory lies in ``place``."""
    found: dict[str, list[int]] = {"agent": [], "member": []}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        for kind, pids in found.items():
            if f"tasks.ranks.{kind} {place}" in said:
                pids.append(int(path.parent.name))
    return found
