"""Progress on the terminal: one bar that follows the work, or, where nobody looks, a line now and then.

No command is silent for long: where work cannot be counted, what is being done is told again with the seconds it took.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tasks.files.plurals import harmless
from tasks.files.progress import watch

LINE_EVERY = 10.0  # seconds between lines of a log
SILENCE = 4.0  # seconds after which a log is told what takes so long, for the first time


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
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        line = progress.add_task("starting", total=None)
        phase = [""]

        def sink(what: str, done: int, total: int) -> None:
            if not total:
                console.print(harmless(what), markup=False, highlight=False)
                return
            if what != phase[0]:
                phase[0] = what
                progress.reset(line, description=harmless(what), total=total if total > 0 else None)
            progress.update(line, completed=done)

        watch(sink)
        yield


@contextmanager
def _lines() -> Iterator[None]:
    log = _Log()
    watch(log.take)
    ended = threading.Event()
    teller = threading.Thread(target=log.break_silence, args=(ended,), daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


class _Log:
    """Lines on stderr, with the time of day; work in hand is told again when it takes long."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last = 0.0
        self.doing, self.since = "starting", time.monotonic()
        self.repeated = 0

    def take(self, what: str, done: int, total: int) -> None:
        """See `tasks.files.progress.Sink`."""
        with self.lock:
            now = time.monotonic()
            if total and what != self.doing:
                self.doing, self.since = what, now
            if not total or done == total or total < 0 or now - self.last > LINE_EVERY:
                self._write(what + (f" {done}/{total}" if total > 0 else " ..." if total else ""))

    def break_silence(self, ended: threading.Event) -> None:
        """Tell what takes so long: after SILENCE, then every LINE_EVERY, until the end."""
        while not ended.wait(0.5):
            with self.lock:
                now = time.monotonic()
                if now - self.last > (LINE_EVERY if self.repeated else SILENCE):
                    repeated = self.repeated
                    self._write(f"{self.doing} ... {now - self.since:.0f} s so far")
                    self.repeated = repeated + 1

    def _write(self, line: str) -> None:
        self.last, self.repeated = time.monotonic(), 0
        print(f"{time.strftime('%H:%M:%S')} {harmless(line)}", file=sys.stderr, flush=True)
