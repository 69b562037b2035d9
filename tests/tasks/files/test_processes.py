"""Worker processes: results, exceptions, and a killed worker, each come back; nothing waits for ever."""

from __future__ import annotations

import signal

import pytest

from tasks.files.processes import WorkerDied, mapped


def test_results_and_exceptions_come_back() -> None:
    assert sorted(mapped(abs, [-3, 2, -1], 2)) == [1, 2, 3]
    assert list(mapped(abs, [-3, 2], 1)) == [3, 2] and not list(mapped(abs, [], 4))
    with pytest.raises(ValueError, match="invalid literal for int"):
        list(mapped(int, ["1", "x", "2"], 2))


def test_a_killed_worker_is_told() -> None:
    with pytest.raises(WorkerDied, match="was killed, by somebody or for want of memory"):
        list(mapped(signal.raise_signal, [signal.SIGKILL] * 2, 2))
