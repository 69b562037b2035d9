"""Progress of long work, without knowing who watches: a terminal's bar, a log, or nobody."""

from __future__ import annotations

from collections.abc import Callable

Sink = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all); a bare sentence has 0 of 0."""

_sink: Sink | None = None


def watch(sink: Sink | None) -> None:
    """Send this process's progress to ``sink`` from now on; None: nowhere."""
    global _sink
    _sink = sink


def announce(what: str, done: int, total: int) -> None:
    """Say how far ``what`` has come."""
    if _sink is not None:
        _sink(what, done, total)


def say(sentence: str) -> None:
    """Tell whoever watches one sentence."""
    announce(sentence, 0, 0)
