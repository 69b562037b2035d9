"""Progress on the terminal: one bar that follows the work, or, where nobody looks, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tasks.progress import watch

LINE_EVERY = 10.0  # seconds between lines of a log


@contextmanager
def shown_progress() -> Iterator[None]:
    """Show this process's progress: a bar on a terminal, lines elsewhere."""
    console = Console(stderr=True)
    with _bar(console) if console.is_terminal else _lines():
        try:
            yield
        finally:
            watch(None)


@contextmanager
def _bar(console: Console) -> Iterator[None]:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        line = progress.add_task("starting", total=None)
        phase = [""]

        def sink(what: str, done: int, total: int) -> None:
            if not total:
                console.print(what)
                return
            if what != phase[0]:
                phase[0] = what
                progress.reset(line, description=what, total=total)
            progress.update(line, completed=done)

        watch(sink)
        yield


@contextmanager
def _lines() -> Iterator[None]:
    last = [0.0]

    def sink(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not total or done == total or now - last[0] > LINE_EVERY:
            last[0] = now
            stamp = time.strftime("%H:%M:%S")
            print(f"{stamp} {what}" + (f" {done}/{total}" if total else ""), file=sys.stderr, flush=True)

    watch(sink)
    yield
