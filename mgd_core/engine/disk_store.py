"""States on disk: written on a thread beside the computation, read ahead of their use.

One file a state (mgd_core.engine.state_files). A write costs the computation a reference and, on a GPU, a copy to
pinned memory on a stream of its own; what it costs the thread is in benchmarks/results/kill.md. At most
mgd_core.engine.background.WAITING states wait to be written: where the disk is slower than the training, the training
waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from mgd_core.engine.background import Background
from mgd_core.engine.state_files import StateFiles
from mgd_core.engine.store import named, unnamed
from mgd_core.training.optimizers import State

PREFIX = "state-"


class DiskStore:
    """A :class:`mgd_core.engine.store.DiskTier`: files of a directory, those of an earlier process from the start."""

    def __init__(self, files: StateFiles, writer: Background) -> None:
        self.files, self.writer = files, writer
        names = (name for name in files.names() if name.startswith(PREFIX))
        self._kept = {int(name.removeprefix(PREFIX)) for name in names}
        self._leaving: dict[int, State] = {}
        self._coming: dict[int, Future[State]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read states")

    def save(self, step: int, state: State) -> None:
        """Raises NoRoom: the disk was full at an earlier write."""
        on_host = leaving(named(state))

        def write() -> None:
            self.files.write(_name(step), on_host(), step=str(step))
            self._leaving.pop(step, None)

        self._leaving[step] = state
        self._kept.add(step)
        self.writer.submit(write)

    def load(self, step: int) -> State:
        """Raises ForeignState: the file belongs to another run; CorruptState: it is damaged."""
        on_its_way = self._leaving.get(step)
        if on_its_way is not None:
            return on_its_way
        if step in self._coming:
            return self._coming.pop(step).result()
        return self._read(step)

    def free(self, step: int) -> None:
        """Remove the file after what the writer was given before."""
        self._kept.discard(step)
        self._leaving.pop(step, None)
        self._coming.pop(step, None)
        self.writer.submit(lambda: self.files.remove(_name(step)))

    def prefetch(self, step: int) -> None:
        """Read the state on a thread."""
        if step in self._kept and step not in self._leaving and step not in self._coming:
            self._coming[step] = self._reader.submit(self._read, step)

    def check_room(self, needed: int, what: str) -> None:
        self.files.check_room(needed, what)

    @property
    def kept(self) -> Set[int]:
        return self._kept

    def close(self) -> None:
        """End the reading thread."""
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int) -> State:
        return unnamed(self.files.read(_name(step), pinned=torch.cuda.is_available())[0])


def leaving(tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Tensors on their way to main memory: what is returned, called on another thread, copies and waits for them.

    They must not change meanwhile. On a CPU they are there already.
    """
    if not any(tensor.is_cuda for tensor in tensors.values()):
        return lambda: dict(tensors)
    device = next(tensor.device for tensor in tensors.values() if tensor.is_cuda)
    ready = torch.cuda.current_stream(device).record_event()

    def copy() -> dict[str, Tensor]:
        stream = torch.cuda.Stream(device)
        stream.wait_event(ready)
        with torch.cuda.stream(stream):
            copies = {name: torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for name, x in tensors.items()}
            for name, tensor in tensors.items():
                copies[name].copy_(tensor, non_blocking=True)
        stream.synchronize()
        return copies

    return copy


def _name(step: int) -> str:
    return f"{PREFIX}{step:08d}"
