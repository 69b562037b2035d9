"""Many tasks of a flow, a bounded number of them under way: a flow of 12,800 shards submits none of the last ones while
the first are at work, so that neither a runner's queue nor the server's books grow with the pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture

Result = TypeVar("Result")

AT_ONCE = 256
"""Tasks that are submitted and not ended: more than any runner works on at a time."""


def in_flight(
    task: Task[..., Result], items: Iterable[Any], *rest: Any, at_once: int = AT_ONCE
) -> Generator[Result, None, None]:
    """Results of the task for each item (its first parameter; `rest` are the others), in order."""
    waiting: deque[PrefectFuture[Result]] = deque()
    for item in items:
        if len(waiting) == at_once:
            yield waiting.popleft().result()
        waiting.append(task.submit(item, *rest))
    while waiting:
        yield waiting.popleft().result()
