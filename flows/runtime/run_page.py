"""What a run tells Prefect's page while it works: its sentences in the log, and a bar for what takes long.

Sentences and beginnings are logged as they come, counted work when it ends and every LOG_EVERY seconds, under the task
run that says so. Work that takes longer than SLOW becomes a progress artifact, kept up by a thread of its own, so that
no training waits for the server; one that does not answer is left alone.
"""

from __future__ import annotations

import contextvars
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from flows.runtime.logs import join_log
from mgd_core.errors import UserError
from tasks.files.progress import Sink

LOG_EVERY = 60.0
SLOW = 2.0
"""Seconds after which work is shown as a bar, and between two looks at it."""


class Stopped(UserError, RuntimeError):
    """The run was cancelled or failed elsewhere, and this unit ended at its next step."""


@dataclass
class _Bar:
    done: int
    total: int
    since: float
    logged: float = 0.0
    shown: int = -1
    artifact: Any = None


class RunPage:
    """The page of the flow run, or of the task run, in whose context it is made; ``outer`` is told as well, and of an
    outer flow's page whoever that one told."""

    def __init__(self, outer: Sink | None = None) -> None:
        page = getattr(outer, "__self__", None)
        self._outer: Sink | None = page._outer if isinstance(page, RunPage) else outer
        self._logger = get_run_logger()
        join_log()
        self._lock = threading.Lock()
        self._bars: dict[str, _Bar] = {}
        self._ended, self._stopped = threading.Event(), threading.Event()

    def take(self, what: str, done: int, total: int) -> None:
        """See `tasks.files.progress.Sink`; raises Stopped once the run is to end."""
        if self._stopped.is_set():
            raise Stopped(f"{what}: the run is ending; its finished work is kept, and the next run goes on from there")
        if self._outer is not None:
            self._outer(what, done, total)
        if total <= 0:
            self._log(what)
            return
        now = time.monotonic()
        with self._lock:
            bar = self._bars.setdefault(what, _Bar(done, total, now, now))
            bar.done, bar.total = done, total
            tell = done == total or now - bar.logged > LOG_EVERY
            if tell:
                bar.logged = now
            if done == total and bar.artifact is None and now - bar.since < SLOW:
                del self._bars[what]
        if tell:
            self._log(f"{what} {done:,}/{total:,}")

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Where the block fails or is ended, what still works in other threads ends at its next step: `take` raises
        from then on. Leaving a task runner waits for them."""
        try:
            yield
        except BaseException:
            self._stopped.set()
            raise

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the bars up in the block."""
        keeper = threading.Thread(target=contextvars.copy_context().run, args=(self._keep,), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            self._ended.set()
            keeper.join(timeout=SLOW)

    def _log(self, what: str) -> None:
        try:
            logger = get_run_logger()
        except MissingContextError:  # a thread of the training's own
            logger = self._logger
        logger.info("%s", what)

    def _keep(self) -> None:
        while not self._ended.wait(SLOW):
            self._show()
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [
                (what, bar, bar.done)
                for what, bar in self._bars.items()
                if bar.done != bar.shown and now - bar.since > SLOW
            ]
        for what, bar, done in due:
            share = 100 * done / bar.total
            try:
                if bar.artifact is None:
                    key = re.sub(r"[^a-z0-9]+", "-", f"progress-{what}".lower()).strip("-")
                    bar.artifact = create_progress_artifact(progress=share, key=key, description=what)
                else:
                    update_progress_artifact(bar.artifact, progress=share)
            except Exception:
                self._ended.set()  # the work does not need its page
                return
            with self._lock:
                bar.shown = done
                if done == bar.total:
                    self._bars.pop(what, None)
