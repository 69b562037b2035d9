"""Commands of `mgd`: one module each, which adds its parser and runs it."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

CATALOGS = Path(__file__).resolve().parents[2] / "catalogs"
"""Where the catalogs that come with mgd lie; `tasks.catalog` has it too, and is slow to import for a word of help."""
Make = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command: its name, what runs it, and what it says of itself."""


@contextmanager
def flow_session(home: Path) -> Iterator[str]:
    """Where flows may be imported and run: a Prefect server, whose API's address it gives, and progress shown."""
    from flows.runtime.session import prefect_session

    with prefect_session(home) as url:
        from flows.console import shown_progress

        with shown_progress():
            yield url


LARGEST = 2**31 - 1
"""The largest number that an option takes: none of them means more by a larger one."""


def names_in(folder: Path) -> str:
    """The catalogs of a folder by name, for a line of help."""
    return ", ".join(sorted(path.stem for path in folder.glob("*.toml"))).replace("%", "%%")


def plain_output() -> None:
    """Let no character end a command: what the terminal's encoding lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def whole(text: str) -> int:
    """An argument that is a whole number from 1 on."""
    return _between(text, 1)


def from_zero(text: str) -> int:
    """An argument that is a whole number from 0 on."""
    return _between(text, 0)


def _between(text: str, least: int) -> int:
    if not (text.isdecimal() and len(text) <= len(str(LARGEST)) and least <= int(text) <= LARGEST):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {LARGEST:,}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def budget(text: str) -> int | float:
    """An argument that is a number of samples (12), or a share of them (0.1)."""
    if text.isdecimal():
        return from_zero(text)
    share = _number(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor a share from 0 to 1")
    return share
