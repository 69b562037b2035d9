"""Turns: one question of a kind at a time for each page, the latest; what it supersedes is ended, in DuckDB too.

A brush that is drawn asks dozens of times a second, and only the last answer is wanted. Every question has an end by
the clock as well, so that a filter line that would take for ever frees its threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from mgd_core.errors import UserError
from tasks.tables.queries import QueryError

SECONDS = 60.0
"""The longest that a question may take."""
AGAIN = 0.1
"""Seconds between interrupts."""
PAGES = 32
"""Pages and kinds of questions that are remembered."""


class Superseded(UserError, RuntimeError):
    """The page has asked anew meanwhile."""


class TooSlow(UserError, RuntimeError):
    """A question took longer than it may."""


class Turn:
    """One question: whether it is still wanted."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        self._guard = threading.Lock()
        self._why: type[UserError] | None = None

    def end(self, why: type[UserError] = Superseded) -> None:
        """Stop it, wherever it is."""
        with self._guard:
            self._why = self._why or why
        self._interrupt()

    def _interrupt(self) -> None:
        with self._guard:
            for cursor in self._cursors:
                cursor.interrupt()
            if self._cursors:  # DuckDB forgets an interrupt that comes just before its question
                again = threading.Timer(AGAIN, self._interrupt)
                again.daemon = True
                again.start()

    def check(self) -> None:
        """Raise Superseded, or TooSlow, if it is to stop."""
        if self._why is TooSlow:
            told = f"this took longer than {self._seconds:g} s and was ended: ask for less, or in `mgd sql`"
            raise TooSlow(told)
        if self._why is not None:
            raise Superseded("asked anew meanwhile")

    @contextmanager
    def timed(self) -> Iterator[Turn]:
        """It ends by the clock, or with the block."""
        timer = threading.Timer(self._seconds, self.end, [TooSlow])
        timer.daemon = True
        timer.start()
        try:
            yield self
        finally:
            timer.cancel()

    @contextmanager
    def asking(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        """DuckDB is asked in the block, and interrupted when the turn ends; its complaints become QueryErrors."""
        with self._guard:
            self._cursors.add(cursor)
        try:
            self.check()
            yield cursor
        except duckdb.Error as error:
            self.check()  # an interrupt is ours
            raise QueryError(str(error).partition("\n\nLINE ")[0].strip()) from error
        finally:
            with self._guard:
                self._cursors.discard(cursor)


class Turns:
    """The latest turn of each kind of question of each page."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._latest: OrderedDict[tuple[str, str], Turn] = OrderedDict()
        self._guard = threading.Lock()

    @contextmanager
    def taking(self, page: str, kind: str) -> Iterator[Turn]:
        """A turn for the block; the one before of the page and kind ends."""
        turn = Turn(self._seconds)
        with self._guard:
            before = self._latest.pop((page, kind), None)
            self._latest[page, kind] = turn
            while len(self._latest) > PAGES:
                self._latest.popitem(last=False)
        if before is not None:
            before.end()
        with turn.timed():
            yield turn
