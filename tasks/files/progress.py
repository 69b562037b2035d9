"""Progress of long work, without knowing who watches: a terminal's bar, a log, or nobody."""

from __future__ import annotations

from collections.abc import Callable

Sink = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all). Without units (0 of 0) it is a sentence; with none in all
(-1) it is what is being done from now on, for as long as that takes."""

_sink: Sink | None = None
UNCOUNTED = -1


def watch(sink: Sink | None) -> None:
    """Send this process's progress to ``sink`` from now on; None: nowhere."""
    global _sink
    _sink = sink


def watching() -> Sink | None:
    """Where this process's progress is sent."""
    return _sink


def announce(what: str, done: int, total: int) -> None:
    """Say how far ``what`` has come."""
    if _sink is not None:
        _sink(what, done, total)


def announcing(train: str, steps: int, reverse: str = "", window: int = 0) -> Callable[[str, int], None]:
    """What a training calls after each step: says how far it has come, and its reverse sweep of ``window`` steps."""

    def on(what: str, t: int) -> None:
        done = (reverse, steps - t, window) if what == "reverse" else (train, t + 1, steps)
        announce(*done)

    return on


def say(sentence: str) -> None:
    """Tell whoever watches one sentence."""
    announce(sentence, 0, 0)


def begin(what: str) -> None:
    """Say what is done from now on, where nobody can count how far it has come."""
    announce(what, 0, UNCOUNTED)
