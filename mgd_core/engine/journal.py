"""The journal of a traversal: what it needs to go on after its process was killed at any instant.

In the forward sweep a record holds the working state and the losses so far. In the reverse sweep it holds the position
p, the state and the adjoint at p, and the sums over the steps reversed; what no longer changes (the trained state, phi,
probe points) is written once. Each record replaces the one before it whole. Bytes: 1 state forward, about 2 backward.

How much a kill can lose is stated by an :class:`Interval`. A record is begun after half of it and written beside the
computation, which waits only where the record is not on the disk when the whole of it has passed: so a kill loses at
most the interval, however slow the disk. What was held in memory alone (the plan's states on the device) is lost as
well, and made again from the states on disk; that costs steps, not progress.
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
from mgd_core.training.optimizers import State

FORWARD, TURN, REVERSE, PROBE = "forward", "turn", "reverse", "probe-"
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

    def __init__(self, files: StateFiles, writer: Background, interval: Interval) -> None:
        self.files, self.writer, self.interval = files, writer, interval
        self._now = Mark(0, time.monotonic())
        self._begun = self._durable = self._now
        self._written: set[str] = set()  # what is written once

    def did_step(self) -> None:
        """A step of either sweep is done that was not done before."""
        self._now = Mark(self._now.steps + 1, time.monotonic())

    @property
    def due(self) -> bool:
        """Whether to begin a record."""
        return self.interval.over(self._begun, self._now, 0.5)

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
        self._submit({FORWARD: (tensors, {"step": str(point.step), "advances": str(point.advances)})})

    def reverse(self, point: ReversePoint) -> None:
        """Begin a record of the reverse sweep."""
        result = point.result
        losses = torch.tensor(result.train_losses, dtype=torch.float64)
        turn = {"phi": result.phi, "losses": losses, **named(result.final), **point.fingerprints}
        once = {f"{PROBE}{p.step:08d}": {"theta": p.theta, "gamma": p.gamma} for p in result.probes} | {TURN: turn}
        new: Records = {name: (tensors, {}) for name, tensors in once.items() if name not in self._written}
        added = {"visits": result.visits, **result.sums}
        sums = {name: total.clone() for name, total in added.items()}  # these are added to in place
        probes = ",".join(str(p.step) for p in result.probes)
        facts = {"position": str(point.position), "advances": str(result.advances), "probes": probes}
        record = {**named(point.after, "after."), **named(point.adjoint, "adjoint."), **sums}
        self._submit({**new, REVERSE: (record, facts)}, obsolete=FORWARD)
        self._written |= new.keys()

    def found(self, device: torch.device) -> ForwardPoint | ReversePoint | None:
        """The newest point there is, its tensors on ``device``; None where nothing was recorded.

        Raises:
            CorruptState: a record is damaged; says what to do.
        """
        names = set(self.files.names())
        if {TURN, REVERSE} <= names:
            tensors, facts = self.files.read(REVERSE)
            probes = [int(step) for step in facts["probes"].split(",") if step]
            if {f"{PROBE}{step:08d}" for step in probes} <= names:
                return self._reverse_point(_on(device, tensors), facts, probes, device)
        if FORWARD not in names:
            return None
        tensors, facts = self.files.read(FORWARD)
        state = moved(unnamed(tensors), device) if "theta" in tensors else None
        losses = tensors["losses"].tolist()
        return ForwardPoint(int(facts["step"]), state, losses, int(facts["advances"]), _fingerprints(tensors))

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

    def _submit(self, records: Records, obsolete: str = "") -> None:
        on_host = {name: (leaving(tensors), facts) for name, (tensors, facts) in records.items()}
        mark = self._begun = self._now
        self.writer.submit(lambda: self._write(on_host, obsolete, mark))

    def _write(
        self, records: Mapping[str, tuple[Callable[[], dict[str, Tensor]], dict[str, str]]], obsolete: str, mark: Mark
    ) -> None:
        for name, (tensors, facts) in records.items():
            self.files.write(name, tensors(), **facts)
        if obsolete:
            self.files.remove(obsolete)
        self._durable = mark


@contextmanager
def durable(directory: Path, key: str, interval: Interval) -> Iterator[tuple[Store, Journal]]:
    """A store with a disk tier and a journal in ``directory``, the traversal's own; remove it when all is done.

    ``key``: a digest of all that the states are a function of: run, catalog, data, versions.

    Raises:
        ForeignState: the directory holds files of another key.
    """
    files, writer = StateFiles(directory, key), Background()
    disk = DiskStore(files, writer)
    try:
        yield Store(disk), Journal(files, writer, interval)
    finally:
        writer.close()
        disk.close()


def _on(device: torch.device, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith("guard.")}
