"""The journal of a traversal: what it needs to go on after its process was killed at any instant.

In the forward sweep a record holds the working state and the losses so far. In the reverse sweep it holds the position
p, the state and the adjoint at p, and the sums over the steps reversed; what no longer changes (the trained state, phi,
probe points) is written once. Each record replaces the one before it whole. Bytes: 1 state forward, about 2 backward.

How much a kill can lose is stated by an :class:`Interval`. A record is begun after half of it and written beside the
computation, which waits only where the record is not on the disk when the whole of it has passed: so a kill loses at
most the interval, however slow the disk. What was held in memory alone (the plan's states on the device) is lost as
well, and made again from the states on disk; that costs steps, not progress.

Over ranks each has a directory of its own, and its slices in it. A kill may find one with a newer record than another,
so each keeps its newest two, replaces the older one only once all have the newer on their disks, and keeps so long the
states that the older one needs. A new process goes on from the newest that all have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mgd_core.engine.background import Background
from mgd_core.engine.disk_store import DiskStore, leaving
from mgd_core.engine.metagradient import Metagradient, ProbePoint
from mgd_core.engine.state_files import StateFiles
from mgd_core.engine.store import Store, moved, named, unnamed
from mgd_core.ranks.ranks import ALONE, Ranks, common
from mgd_core.training.optimizers import State

FORWARD, TURN, REVERSE, PROBE = "forward", "turn", "reverse", "probe-"
NEWEST = 2
"""Records of a sweep that a rank of several keeps; a process alone keeps one."""
NOT_SUMS = ("after.", "adjoint.", "visits")
Records = Mapping[str, tuple[Mapping[str, Tensor], dict[str, str]]]
"""Tensors and facts by the name of their file."""


@dataclass(frozen=True)
class Interval:
    """Most work that a kill may lose: steps (of either sweep), seconds, or whichever comes first."""

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.steps, self.seconds) if x is not None]
        if not given or min(given) <= 0:
            raise ValueError(f"an interval needs a positive number of steps or seconds; got {self}")

    def over(self, since: Mark, now: Mark, share: float = 1.0) -> bool:
        """Whether ``share`` of the interval has passed."""
        by_steps = self.steps is not None and now.steps - since.steps >= self.steps * share
        return by_steps or (self.seconds is not None and now.seconds - since.seconds >= self.seconds * share)


class Mark(NamedTuple):
    """A moment: steps done, and the clock."""

    steps: int
    seconds: float


class ForwardPoint(NamedTuple):
    """Where the forward sweep was. ``state``: that of ``step``; None where the disk store keeps one near it."""

    step: int
    state: State | None
    losses: list[float]
    advances: int
    fingerprints: dict[str, Tensor]


class ReversePoint(NamedTuple):
    """Where the reverse sweep was: steps [start, position) remain. ``after``, ``adjoint``: at ``position``."""

    position: int
    after: State
    adjoint: State
    result: Metagradient
    fingerprints: dict[str, Tensor]


class Journal:
    """Writes the records of one traversal and finds the newest."""

    def __init__(self, files: StateFiles, writer: Background, interval: Interval, ranks: Ranks = ALONE) -> None:
        self.files, self.writer, self.interval, self.ranks = files, writer, interval, ranks
        self._now = Mark(0, time.monotonic())
        self._begun = self._durable = self._now
        self._written: set[str] = set()  # what is written once
        self._made = 0  # records
        self._turned = False  # a record of the reverse sweep was begun
        self._idle: list[Callable[[], object]] = []  # what can go once all ranks have the newest record

    def did_step(self) -> None:
        """A step of either sweep is done that was not done before."""
        self._now = Mark(self._now.steps + 1, time.monotonic())

    @property
    def due(self) -> bool:
        """Whether to begin a record; the same on all ranks, whatever their clocks say."""
        over = self.interval.over(self._begun, self._now, 0.5)
        return over if self.interval.seconds is None else self.ranks.anywhere(over)

    def settle(self) -> None:
        """Wait for the record under way where no more may be lost.

        Raises:
            NoRoom: the disk is full.
        """
        if self.interval.over(self._durable, self._now):
            self.writer.flush()

    def forward(self, point: ForwardPoint) -> None:
        """Begin a record of the forward sweep."""
        tensors = {"losses": torch.tensor(point.losses, dtype=torch.float64), **point.fingerprints}
        if point.state is not None:
            tensors |= named(point.state)
        name = self._next(FORWARD)
        self._submit({name: (tensors, {"step": str(point.step), "advances": str(point.advances)})})

    def reverse(self, point: ReversePoint) -> None:
        """Begin a record of the reverse sweep."""
        result, name = point.result, self._next(REVERSE)
        losses = torch.tensor(result.train_losses, dtype=torch.float64)
        turn = {"phi": result.phi, "losses": losses, **named(result.final), **point.fingerprints}
        once = {f"{PROBE}{p.step:08d}": {"theta": p.theta, "gamma": p.gamma} for p in result.probes} | {TURN: turn}
        new: Records = {name: (tensors, {}) for name, tensors in once.items() if name not in self._written}
        added = {"visits": result.visits, **result.sums}
        sums = {name: total.clone() for name, total in added.items()}  # these are added to in place
        probes = ",".join(str(p.step) for p in result.probes)
        facts = {"position": str(point.position), "advances": str(result.advances), "probes": probes}
        record = {**named(point.after, "after."), **named(point.adjoint, "adjoint."), **sums}
        self._submit({**new, name: (record, facts)})
        self._written |= new.keys()
        if not self._turned:
            self._turned = True
            self.release(lambda: self.writer.submit(self._remove_forward))

    def release(self, remove: Callable[[], object]) -> None:
        """Have something removed that the record just begun needs no more: after it, and after that of all ranks."""
        self._idle.append(remove)
        if self.ranks.count == 1:
            self._let_go()

    def _let_go(self) -> None:
        for remove in self._idle:
            remove()
        self._idle.clear()

    def _remove_forward(self) -> None:
        for name in self.files.names():
            if name.startswith(FORWARD):
                self.files.remove(name)

    def _next(self, sweep: str) -> str:
        """The file of the next record, once all ranks have the one before it; what that one released goes now."""
        if self.ranks.count == 1:
            return sweep
        self.writer.flush()
        self.ranks.anywhere(True)
        self._let_go()
        self._made += 1
        return f"{sweep}-{self._made % NEWEST}"

    def found(self, device: torch.device) -> ForwardPoint | ReversePoint | None:
        """The newest point there is, its tensors on ``device``; None where nothing was recorded.

        Raises:
            CorruptState: a record is damaged; says what to do.
        """
        names = set(self.files.names())
        for_all = common(self.ranks, self._points(names))
        if not for_all:
            return None
        at = max(for_all)
        name = self._points(names)[at]
        self._made = int(name.rpartition("-")[2]) if self.ranks.count > 1 else 0  # the other one is replaced next
        tensors, facts = self.files.read(name)
        if name.startswith(REVERSE):
            return self._reverse_point(_on(device, tensors), facts, _probes(facts), device)
        state = moved(unnamed(tensors), device) if "theta" in tensors else None
        losses = tensors["losses"].tolist()
        return ForwardPoint(int(facts["step"]), state, losses, int(facts["advances"]), _fingerprints(tensors))

    def _points(self, names: set[str]) -> dict[tuple[bool, int], str]:
        """The record of every point that this rank could go on from; of two points, the larger is the newer."""
        found = {}
        for name in names:
            sweep = name.partition("-")[0]
            if sweep == FORWARD:
                found[False, int(self.files.facts(name)["step"])] = name
            elif name.startswith(REVERSE) and TURN in names:
                facts = self.files.facts(name)
                if {f"{PROBE}{step:08d}" for step in _probes(facts)} <= names:
                    found[True, -int(facts["position"])] = name
        return found

    def _reverse_point(
        self, tensors: Mapping[str, Tensor], facts: Mapping[str, str], probes: Sequence[int], device: torch.device
    ) -> ReversePoint:
        turn = self.files.read(TURN)[0]
        points = []
        for step in probes:
            vectors = _on(device, self.files.read(f"{PROBE}{step:08d}")[0])
            points.append(ProbePoint(step, vectors["theta"], vectors["gamma"]))
        final, phi, losses = moved(unnamed(turn), device), turn["phi"].to(device), turn["losses"].tolist()
        sums = {name: total for name, total in tensors.items() if not name.startswith(NOT_SUMS)}
        result = Metagradient(phi, final, sums, tensors["visits"], losses, points, advances=int(facts["advances"]))
        self._written = {TURN, *(f"{PROBE}{step:08d}" for step in probes)}
        after, adjoint = unnamed(tensors, "after."), unnamed(tensors, "adjoint.")
        return ReversePoint(int(facts["position"]), after, adjoint, result, _fingerprints(turn))

    def _submit(self, records: Records) -> None:
        on_host = {name: (leaving(tensors), facts) for name, (tensors, facts) in records.items()}
        mark = self._begun = self._now
        self.writer.submit(lambda: self._write(on_host, mark))

    def _write(self, records: Mapping[str, tuple[Callable[[], dict[str, Tensor]], dict[str, str]]], mark: Mark) -> None:
        for name, (tensors, facts) in records.items():
            self.files.write(name, tensors(), **facts)
        self._durable = mark


@contextmanager
def durable(directory: Path, key: str, interval: Interval, ranks: Ranks = ALONE) -> Iterator[tuple[Store, Journal]]:
    """A store with a disk tier and a journal in ``directory``, the traversal's own; remove it when all is done.

    ``key``: a digest of all that the states are a function of: run, catalog, data, versions. Of several ``ranks`` each
    has a directory in it.

    Raises:
        ForeignState: the directory holds files of another key.
    """
    if ranks.count > 1:
        name = f"rank-{ranks.number}-of-{ranks.count}"
        directory, key = Path(directory) / name, f"{key} {name}"
    files, writer = StateFiles(directory, key), Background()
    disk = DiskStore(files, writer)
    for step in disk.kept - common(ranks, disk.kept):  # what not all have is of no use
        disk.free(step)
    try:
        yield Store(disk), Journal(files, writer, interval, ranks)
    finally:
        writer.close()
        disk.close()


def _probes(facts: Mapping[str, str]) -> list[int]:
    """Probe steps that a reverse record has."""
    return [int(step) for step in facts["probes"].split(",") if step]


def _on(device: torch.device, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith("guard.")}
