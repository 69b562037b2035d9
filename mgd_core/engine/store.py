"""Where a reverse traversal keeps its states: one interface over device, pinned host memory and disk.

A tier keeps states by step. States are immutable, so keeping one in the memory of its device costs a reference. On a
GPU, copies to pinned host memory are made on a stream of their own, beside the computation, and ``prefetch`` brings one
back ahead of its use. The disk's tier is mgd_core.engine.disk_store.

While a copy or a write is under way its state stays in memory: up to mgd_core.engine.background.WAITING more states
than the plan keeps, and one that was prefetched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor

from mgd_core.plans.actions import Tier
from mgd_core.training.optimizers import State


class TierStore(Protocol):
    """Keeps states on one tier."""

    def save(self, step: int, state: State) -> None:
        """Keep the state of ``step``."""

    def load(self, step: int) -> State:
        """The kept state of ``step``, on any device."""

    def free(self, step: int) -> None:
        """Forget the state of ``step``."""

    def prefetch(self, step: int) -> None:
        """The state of ``step`` will be loaded soon; nothing happens where it is not kept."""

    @property
    def kept(self) -> Collection[int]:
        """Steps whose states are kept."""


class DiskTier(TierStore, Protocol):
    """Keeps states on a disk, which may be full."""

    def check_room(self, needed: int, what: str) -> None:
        """See that ``needed`` bytes fit, those in use for this traversal included."""


class MemoryStore:
    """A :class:`TierStore`: states in the memory of their device."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def save(self, step: int, state: State) -> None:
        self._states[step] = state

    def load(self, step: int) -> State:
        return self._states[step]

    def free(self, step: int) -> None:
        del self._states[step]

    def prefetch(self, step: int) -> None:
        """Nothing to do."""

    @property
    def kept(self) -> Collection[int]:
        return self._states.keys()


class HostStore(MemoryStore):
    """Those in pinned host memory, copied on a stream of their own; in main memory where states are there anyway."""

    def __init__(self) -> None:
        super().__init__()
        self._leaving: dict[int, tuple[torch.cuda.Event, State]] = {}  # device tensors live until they are copied
        self._coming: dict[int, tuple[torch.cuda.Event, State]] = {}
        self._stream: torch.cuda.Stream | None = None

    def save(self, step: int, state: State) -> None:
        if not state.theta.is_cuda:
            self._states[step] = state
            return
        self._leaving = {k: pair for k, pair in self._leaving.items() if not pair[0].query()}
        self._device = state.theta.device
        pinned = each(state, lambda x: torch.empty(x.shape, dtype=x.dtype, pin_memory=True))
        event = self._copied(pinned, state)
        self._states[step], self._leaving[step] = pinned, (event, state)

    def load(self, step: int) -> State:
        if self._stream is None:
            return self._states[step]
        self.prefetch(step)
        event, state = self._coming.pop(step)
        torch.cuda.current_stream(self._device).wait_event(event)
        for tensor in state.tensors:  # made on another stream: its memory may be used again only after this one
            tensor.record_stream(torch.cuda.current_stream(self._device))
        return state

    def free(self, step: int) -> None:
        for held in (self._leaving, self._coming):
            if step in held:
                held.pop(step)[0].synchronize()
        del self._states[step]

    def prefetch(self, step: int) -> None:
        """Copy the state back to the device, beside the computation."""
        if self._stream is None or step not in self._states or step in self._coming:
            return
        with torch.cuda.stream(self._stream):
            state = each(self._states[step], lambda x: torch.empty_like(x, device=self._device))
        self._coming[step] = self._copied(state, self._states[step]), state

    def _copied(self, target: State, source: State) -> torch.cuda.Event:
        """Copy on the side stream after what the current one was given; returns the event of its end."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for a, b in zip(target.tensors, source.tensors, strict=True):
                a.copy_(b, non_blocking=True)
            return self._stream.record_event()


class Store:
    """All tiers that a plan may name."""

    def __init__(self, disk: DiskTier | None = None) -> None:
        self._disk = disk
        self._tiers: dict[Tier, TierStore] = {Tier.DEVICE: MemoryStore(), Tier.HOST: HostStore()}
        if disk is not None:
            self._tiers[Tier.DISK] = disk

    @property
    def has_disk(self) -> bool:
        """Whether states can be kept on disk."""
        return self._disk is not None

    def save(self, step: int, state: State, tier: Tier = Tier.DEVICE) -> None:
        """Keep the state of ``step`` on ``tier``."""
        self._tiers[tier].save(step, state)

    def load(self, step: int, tier: Tier = Tier.DEVICE, device: torch.device | None = None) -> State:
        """The state of ``step`` that ``tier`` keeps, on ``device``."""
        state = self._tiers[tier].load(step)
        return state if device is None else moved(state, device)

    def free(self, step: int, tier: Tier = Tier.DEVICE) -> None:
        """Forget the state of ``step`` that ``tier`` keeps."""
        self._tiers[tier].free(step)

    def prefetch(self, step: int, tier: Tier) -> None:
        """The state of ``step`` will be loaded from ``tier`` soon."""
        self._tiers[tier].prefetch(step)

    def kept(self, tier: Tier) -> list[int]:
        """Steps whose states ``tier`` keeps, in order."""
        return sorted(self._tiers[tier].kept) if tier in self._tiers else []

    def check_room(self, needed: int, what: str) -> None:
        """See that ``needed`` bytes fit on the disk; says ``what`` needs them where they do not."""
        assert self._disk is not None
        self._disk.check_room(needed, what)


class Peaks:
    """How many states are kept at once, by tier."""

    def __init__(self) -> None:
        self._held: dict[Tier, set[int]] = {}
        self.states: dict[Tier, int] = {}

    def save(self, step: int, tier: Tier) -> None:
        """A state is kept."""
        held = self._held.setdefault(tier, set())
        held.add(step)
        self.states[tier] = max(self.states.get(tier, 0), len(held))

    def free(self, step: int, tier: Tier) -> None:
        """A state is forgotten; one of an earlier process was never counted."""
        self._held.get(tier, set()).discard(step)


def each(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """The state with every tensor changed."""
    return State(change(state.theta), tuple(change(moment) for moment in state.moments))


def moved(state: State, device: torch.device) -> State:
    """The state on ``device``; the same where it is there."""
    return each(state, lambda x: x.to(device, non_blocking=True))


def named(state: State, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a state under the names they have in a file."""
    moments = {f"{prefix}moment.{i}": moment for i, moment in enumerate(state.moments)}
    return {f"{prefix}theta": state.theta, **moments}


def unnamed(tensors: Mapping[str, Tensor], prefix: str = "") -> State:
    """The state of tensors named so."""
    moments = sum(name.startswith(f"{prefix}moment.") for name in tensors)
    return State(tensors[f"{prefix}theta"], tuple(tensors[f"{prefix}moment.{i}"] for i in range(moments)))
