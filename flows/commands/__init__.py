"""Commands of `mgd`: one module each, which adds its parser and runs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.catalog import BaseCatalog

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


def tell_targets(catalog: BaseCatalog, home: Path) -> None:
    """Say what is read of a catalog's targets and tests, and what is left; raises what is wrong with them, before any
    work."""
    from tasks.target_check import check_targets

    for note in check_targets(catalog, home):
        print(note, file=sys.stderr)


def whole(text: str) -> int:
    """An argument that is a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def budget(text: str) -> int | float:
    """An argument that is a number of samples (12), or a share of them (0.1)."""
    if text.isdecimal():
        return int(text)
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor a share from 0 to 1")
    return share
