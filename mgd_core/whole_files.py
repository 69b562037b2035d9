"""Files that appear whole: flushed to the disk, renamed over their final name, and the directory's entry flushed too.

A process killed at any instant leaves the old file or the new one, never a mixture.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mgd_core.errors import UserError

# EFBIG is what a file-size limit (ulimit -f) answers; to the user it is the same end with the same remedy.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NoRoom(UserError, OSError):
    """The disk cannot hold what is to be written."""


def full_disk(error: Exception) -> int | None:
    """The system's number of a full disk, where that is what an error says; libraries pass it on in its words."""
    if isinstance(error, OSError):
        return error.errno if error.errno in FULL else None
    told = "" if isinstance(error, UserError) else str(error)
    return next((code for code in FULL if os.strerror(code) in told), None)


def move_in(staged: str | Path, path: Path) -> None:
    """Rename a file that is complete to its final name, durably."""
    sync(staged)
    os.replace(staged, path)
    sync(path.parent)


def sync(path: str | Path) -> None:
    """Flush a file's bytes, or a directory's entries, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
