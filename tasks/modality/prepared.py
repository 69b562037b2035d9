"""What is made of a pool once, before any of its recipes is opened: decoded pictures, tokens.

The work is cut into parts, none of which depends on another, so any of them may be made anywhere and in any order, by
the units of a flow or one after the other by whoever needs the whole. A part is found done by its own record, written
last; when all are there the whole gets a record and theirs go.
"""

from __future__ import annotations

import fcntl
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tasks.files.artefacts import is_done, publish_json, read_json
from tasks.files.progress import announce
from tasks.pool.columns import Ids, PoolColumns

WHOLE = "whole.json"


class Prepared(ABC):
    """Something that is made of a pool's ``columns`` part by part, in ``directory``."""

    what: ClassVar[str]
    """What making it is called."""
    at_least: ClassVar[int]
    """Samples of a part: some seconds of work."""

    def __init__(self, columns: PoolColumns, directory: Path) -> None:
        self.columns, self.directory = columns, directory

    @property
    @abstractmethod
    def key(self) -> str:
        """What it is a function of."""

    @property
    def cuts(self) -> Ids:
        """Where a part may end, ascending."""
        return np.arange(self.at_least, len(self.columns), self.at_least)

    @cached_property
    def parts(self) -> list[tuple[int, int]]:
        """Where each part begins and ends."""
        edges = [0]
        for cut in self.cuts.tolist():
            if cut - edges[-1] >= self.at_least:
                edges.append(cut)
        edges += [len(self.columns)] if edges[-1] < len(self.columns) else []
        return list(pairwise(edges))

    @property
    def is_whole(self) -> bool:
        """Whether it is made."""
        return is_done(self.directory / WHOLE, self.key)

    def pending(self) -> list[int]:
        """Numbers of the parts that are to be made; those that may be made now, anywhere."""
        if self.is_whole:
            return []
        with self._alone():
            self.lay_out()
            return [number for number in range(len(self.parts)) if not is_done(self._record(number), self._key(number))]

    def make(self, number: int) -> None:
        """Make one part, unless it is made."""
        if not self.is_whole and not is_done(self._record(number), self._key(number)):
            self.write(number, *self.parts[number])
            publish_json(self._record(number), {"key": self._key(number)})

    def finish(self) -> None:
        """Put the parts together, when all are made."""
        with self._alone():
            if not self.is_whole:
                assert all(is_done(self._record(i), self._key(i)) for i in range(len(self.parts))), "a part is missing"
                publish_json(self.directory / WHOLE, {"key": self.key, **self.gather()})
            self.forget()

    def ensure(self) -> None:
        """Make all that is not made, in this thread."""
        pending = self.pending()
        for done, number in enumerate(pending):
            announce(self.what, done, len(pending))
            self.make(number)
        if pending or not self.is_whole:
            self.finish()
            announce(self.what, len(pending), len(pending))

    @property
    def record(self) -> dict[str, Any]:
        """The record of the whole."""
        return read_json(self.directory / WHOLE)

    def lay_out(self) -> None:  # noqa: B027  # where there is nothing to do
        """Make room before the first part."""

    @abstractmethod
    def write(self, number: int, start: int, stop: int) -> None:
        """Make the part of samples ``start`` to before ``stop``, durably."""

    def gather(self) -> dict[str, Any]:
        """Put the parts together; returns what the record says besides."""
        return {}

    def forget(self) -> None:
        """Remove what only the parts needed."""
        for path in self.directory.glob("part-*"):
            path.unlink(missing_ok=True)

    def part(self, number: int) -> Path:
        """A name for a part's own file."""
        return self.directory / f"part-{number:05d}"

    def _record(self, number: int) -> Path:
        return self.part(number).with_suffix(".json")

    def _key(self, number: int) -> str:
        return f"{self.key} {self.parts[number]}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else lays out or puts together meanwhile."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / ".lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
