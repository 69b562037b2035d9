"""Worker processes that never outlive their work.

Workers are forked from a fresh interpreter that has imported the work (nothing of the parent's threads and locks is
copied). Each holds the reading end of a pipe whose writing end only the parent has: when the parent ends for any
reason, SIGKILL included, or gives up, the pipe closes and the workers exit at once. A worker that is killed ends the
work with WorkerDied instead of a wait without end.

Costs the imports once, about half a second for `reshard`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

from mgd_core.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDied(UserError, RuntimeError):
    """A worker process was killed from outside."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def mapped(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    """`work(item)` of every item, as they get done, by that many processes; by this one when it is one.

    The first exception of a worker is raised here; the other workers finish what they are at. `work` and items are
    pickled.
    """
    listed = list(items)
    if min(workers, len(listed)) <= 1:
        yield from map(work, listed)
        return
    context = get_context("forkserver")
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    reading, writing = context.Pipe(duplex=False)
    with writing, reading:
        pool = ProcessPoolExecutor(min(workers, len(listed)), context, initializer=_obey, initargs=(reading,))
        try:
            for done in as_completed([pool.submit(work, item) for item in listed]):
                yield done.result()
        except BrokenProcessPool as error:
            raise WorkerDied(
                "a worker process was killed, by somebody or for want of memory (see dmesg). Give the same command "
                "again, with fewer workers if memory was short: finished work is kept"
            ) from error
        except (KeyboardInterrupt, GeneratorExit):
            writing.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _obey(leash: Connection) -> None:
    """Make this process end when the other end of the pipe is closed, and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait, args=(leash,), daemon=True, name="leash").start()


def _wait(leash: Connection) -> None:
    leash.poll(None)
    os._exit(1)
