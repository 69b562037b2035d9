"""Where trainings run: one device, or a pool of them from which each training takes one that is free."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, model_validator

from tasks.files.option_types import Filled, Section, Workers


def _device_name(name: str) -> str:
    if not re.fullmatch(r"mps|(cpu|cuda|xpu)(:[0-9]{1,3})?", name):
        raise ValueError("a device is 'cpu', 'cuda', or one of several: 'cuda:1'")
    return name


Device = Annotated[str, AfterValidator(_device_name)]


class DeviceSection(Section):
    """Where trainings run, and with how many threads."""

    device: Device = "cpu"
    """Where trainings run: `cpu`, `cuda`, `cuda:1`, ..."""
    devices: Literal["all"] | Annotated[tuple[Device, ...], Filled] | None = None
    """Instead of `device`: several of one kind, say `["cuda:0", "cuda:1"]`, or `"all"` GPUs of a machine. What trains
    takes one that is free, and no result depends on which. `["cpu", "cpu"]` trains two things at a time, each with
    `threads` threads. Tasks are then carried by processes, if `runner` says nothing else."""
    threads: Workers = 2
    """CPU threads of a training; part of the run's identity, since it changes results bit for bit."""

    @model_validator(mode="before")
    @classmethod
    def _one_of_the_two(cls, said: Any) -> Any:
        """With `devices`, `device` is the first of them: where a recipe is opened that takes none. A process trains one
        thing at a time (forward mode and the deterministic switches of PyTorch are the process's), so several take
        processes."""
        pool = ["cuda"] if _said(said, "devices") == "all" else _said(said, "devices")
        if pool is None and str(_said(said, "device")).startswith("cpu:"):
            pool = [said["device"]]
            said = {**said, "devices": pool}
        if not isinstance(pool, list | tuple) or not pool or not all(isinstance(name, str) for name in pool):
            return said
        if len({kind_of_device(name) for name in pool}) > 1:
            raise ValueError(f"devices {', '.join(pool)} are of several kinds, which do not give the same bits")
        first = torch_device(pool[0])
        if said.get("device", first) not in (first, pool[0]):
            raise ValueError(f"device '{said['device']}' and devices {', '.join(pool)}: say one of the two")
        several = said["devices"] == "all" or len(pool) > 1
        return {**({"runner": "processes"} if several else {}), **said, "device": first}

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if len({*self.slots}) < len(self.slots):
            raise ValueError(f"devices {', '.join(self.slots)}: one is named twice")
        runner = getattr(self, "runner", None)
        if (self.devices == "all" or len(self.slots) > 1) and getattr(runner, "kind", runner) == "threads":
            raise ValueError(
                "several devices and runner 'threads': threads of one process train one at a time. Take runner "
                "'processes' (as without the key), 'ray' or 'dask'"
            )
        return self

    @property
    def slots(self) -> tuple[str, ...]:
        """The devices that are named, each with its number; of `"all"`, the first."""
        named = self.devices if isinstance(self.devices, tuple) else (self.device,)
        return tuple(name if ":" in name else f"{name}:{i if name == 'cpu' else 0}" for i, name in enumerate(named))


def _said(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, Mapping) else None


def kind_of_device(name: str) -> str:
    """`cuda` of `cuda:1`: what results depend on, with the number that stands behind it they do not."""
    return name.partition(":")[0]


def torch_device(name: str) -> str:
    """A device as PyTorch calls it, which has one CPU."""
    return "cpu" if kind_of_device(name) == "cpu" else name


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Open recipes on ``device`` in the block."""
    token = _in_hand.set(torch_device(device))
    try:
        yield
    finally:
        _in_hand.reset(token)


def device_in_hand(runtime: DeviceSection) -> str:
    """The device that was taken, as PyTorch calls it; the catalog's first where none was."""
    return _in_hand.get() or runtime.device


_in_hand: ContextVar[str | None] = ContextVar("mgd_device", default=None)
