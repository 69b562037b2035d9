"""One rank of a group: joins the others, does the job, and ends with the agent that started it."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import sys
import threading
import traceback
from datetime import timedelta
from multiprocessing.connection import Client, Connection
from pathlib import Path

import torch
import torch.distributed as dist

from mgd_core.errors import UserError
from mgd_core.ranks.ranks import GroupRanks
from tasks.catalog.device_options import on_device
from tasks.files.progress import watch
from tasks.ranks.agent import LEASH
from tasks.ranks.group import JOB, Job

PATIENCE = timedelta(hours=12)
"""A collective waits so long: others may evaluate a target meanwhile, and a rank that died ends the group at once."""


def main(folder: Path) -> None:
    """Do the job in ``folder`` as the rank that the agent's variables say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the task's, which lets go of the leash
    leash = Client(str(folder / LEASH), family="AF_UNIX")
    threading.Thread(target=_obey, args=(leash,), daemon=True, name="leash").start()
    job: Job = pickle.loads((folder / JOB).read_bytes())
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = job.devices[int(os.environ["LOCAL_RANK"])]
    try:
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        store = dist.FileStore(str(folder / "group"), count)
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
        if number == 0:
            watch(lambda *told: print(json.dumps(told), flush=True))
        module, _, function = job.work.partition(":")
        with on_device(device):
            getattr(importlib.import_module(module), function)(*job.arguments, ranks=GroupRanks())
        dist.barrier()
    except BaseException as error:
        if not isinstance(error, UserError):
            error.add_note(f"on rank {number}:\n{traceback.format_exc()}")
        (folder / f"error-{number}").write_bytes(_pickled(error))
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # destroying the group waits for threads of the backend, and there is nothing left to lose


def _obey(leash: Connection) -> None:
    leash.poll(None)
    os._exit(1)


def _pickled(error: BaseException) -> bytes:
    """The error, or its words where it cannot be sent."""
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return packed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
