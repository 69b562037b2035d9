"""Scratch directories of a home: for files that are in the way of memory, and that no one needs afterwards.

A live owner holds an flock on its directory; what a killed one left is removed by whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch(home: str | Path, name: str) -> Iterator[Path]:
    """A new directory below the home's staging place, removed with all that is in it at the end."""
    place = Path(home) / ".staging"
    place.mkdir(parents=True, exist_ok=True)
    _sweep(place)
    directory, descriptor = _created(place, f"scratch-{name}-")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def _created(place: Path, prefix: str) -> tuple[Path, int]:
    """A new directory and the descriptor that holds its lock; another one, should a sweep have taken the first before
    it was locked."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        with suppress(FileNotFoundError):
            descriptor = os.open(directory, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # a sweep that holds it is about to remove the directory
            if directory.exists():
                return directory, descriptor
            os.close(descriptor)


def _sweep(place: Path) -> None:
    for directory in place.glob("scratch-*"):
        with suppress(OSError):  # gone meanwhile, or held by its owner
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)
