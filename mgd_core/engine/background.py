"""One thread that does jobs in the order given, beside the computation.

Its order is what makes a resumable run safe: a state is removed only after the record that makes it useless is on the
disk, because the removal was given after the record. When a job fails, none of those after it is done, and the error is
raised by the next call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

WAITING = 2
"""Jobs given and not yet done at most: one being written, one waiting. Each may hold a state in memory."""


class Background:
    """A thread for writing."""

    def __init__(self, name: str = "states") -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._given: deque[Future[None]] = deque()
        self._failed: BaseException | None = None

    def submit(self, job: Callable[[], None]) -> Future[None]:
        """Do ``job`` after those given before; waits while ``WAITING`` are not done.

        Raises:
            Exception: what an earlier job failed with.
        """
        while self._given and (self._given[0].done() or len(self._given) >= WAITING):
            self._given.popleft().result()
        future = self._thread.submit(self._run, job)
        self._given.append(future)
        return future

    def flush(self) -> None:
        """Wait until all is done.

        Raises:
            Exception: what a job failed with.
        """
        while self._given:
            self._given.popleft().result()

    def close(self) -> None:
        """Wait for what was given and end the thread; errors are not raised again."""
        self._thread.shutdown(wait=True)

    def _run(self, job: Callable[[], None]) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            job()
        except BaseException as error:
            self._failed = error
            raise
