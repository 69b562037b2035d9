"""Batches read ahead of their use, in the order that a plan will ask for them: the plan is the sampler.

A reverse traversal visits steps again and again, and a plan knows the whole order beforehand, replays included
(``mgd_core.plans.actions.batch_order``). So threads read and decode the next batches while a step runs, and a cache of
a stated size keeps those batches that are needed again soonest: for a known order the rule of fewest reads (Belady
1966, "A study of replacement algorithms"). A batch that is asked for out of turn is read at once. Which thread reads,
and what is cached, changes no bit: a batch is a function of its step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from math import inf

from mgd_core.training.learner import Batch

AHEAD = 2
"""Batches read ahead for each reading thread: one under way, one ready."""


class Loader:
    """The batches of a training, for :class:`mgd_core.training.learner.Learner`. ``reads`` counts what was read."""

    def __init__(
        self,
        read: Callable[[int], Batch],
        readers: int = 1,
        cache_bytes: int = 0,
        move: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:
        """``read``: the batch of a step, in main memory, on any thread; ``move``: brings it to the device, on the
        thread that asks. ``cache_bytes``: of batches kept beyond those read ahead."""
        if readers < 1 or cache_bytes < 0:
            raise ValueError(f"a loader needs a reader and no negative cache; got {readers} and {cache_bytes} bytes")
        self._read, self._move, self._cache_bytes = read, move, cache_bytes
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="read batches")
        self._ahead = AHEAD * readers
        self._order: list[int] = []
        self._at = 0
        self._uses: dict[int, deque[int]] = {}  # positions in the order still to come, by step
        self._coming: dict[int, Future[Batch]] = {}
        self._cached: dict[int, Batch] = {}
        self.reads = 0

    def expect(self, steps: Iterable[int]) -> None:
        """The steps that will be asked for from now on, in this order."""
        self._order, self._at, self._uses = list(steps), 0, {}
        for position, t in enumerate(self._order):
            self._uses.setdefault(t, deque()).append(position)
        self._coming = {t: future for t, future in self._coming.items() if t in self._uses}
        self._cached = {t: batch for t, batch in self._cached.items() if t in self._uses}
        self._read_ahead()

    def __call__(self, t: int) -> Batch:
        """The batch of step ``t``, on the device."""
        batch = self._taken(t)
        if self._at < len(self._order) and self._order[self._at] == t:
            self._at += 1
            self._uses[t].popleft()
        self._keep(t, batch)
        self._read_ahead()
        return self._move(batch)

    def _taken(self, t: int) -> Batch:
        if t in self._cached:
            return self._cached[t]
        if t in self._coming:
            return self._coming.pop(t).result()
        self.reads += 1
        return self._read(t)

    def _keep(self, t: int, batch: Batch) -> None:
        """Keep the batch if it is worth more than another: the one needed last goes."""
        self._cached[t] = batch
        used = sum(map(batch_bytes, self._cached.values()))
        while self._cached and (used > self._cache_bytes or self._next_use(t) == inf):
            last = max(self._cached, key=self._next_use)
            used -= batch_bytes(self._cached.pop(last))
            if last == t:
                break

    def _next_use(self, t: int) -> float:
        uses = self._uses.get(t)
        return uses[0] if uses else inf

    def _read_ahead(self) -> None:
        for t in self._order[self._at : self._at + self._ahead]:
            if t not in self._cached and t not in self._coming:
                self.reads += 1
                self._coming[t] = self._threads.submit(self._read, t)


def batch_bytes(batch: Batch) -> int:
    """Size of a batch in memory."""
    return sum(x.nbytes for x in (*batch.rows, batch.ids, batch.weights))
