"""Advisory file locks that the kernel releases when their holder dies, however it dies (``flock``).

A lock file is never removed while it may be waited for: removing it would let two processes hold "the"
lock, each on its own inode. Its content is a note for people and for the waiting message, not the lock.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def try_lock(path: Path) -> int | None:
    """Lock `path` (made if missing) without waiting: the open descriptor that holds it, or None if taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def exclusive(path: Path, *, note: str = "", on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock at `path` for the block, waiting for it if need be.

    `note` is left in the file for others to read; `on_wait` is called once, with the present holder's note,
    before the first wait. Not re-entrant: a process that takes a lock twice waits for itself.
    """
    descriptor = try_lock(path)
    waiting = descriptor is None
    if descriptor is None:
        descriptor = os.open(path, os.O_RDWR)
    try:
        if waiting:
            if on_wait is not None:
                on_wait(path.read_text(errors="replace").strip())
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note.encode(), 0)
        yield
    finally:
        os.close(descriptor)
