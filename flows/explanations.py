"""What a command says when it fails for a reason that is not a bug: what, where, and what to do.

Our own errors say all that (`mgd_core.errors.UserError`). What the machine answers to any line of any program (no such
file, no leave, no room, no memory, no package, no server) is put into words here. Anything else is a bug of ours.
"""

from __future__ import annotations

import errno
from pathlib import Path

from mgd_core.errors import UserError

OURS = ("mgd_core", "tasks", "flows", "catalogs")
MACHINE = {
    errno.ENOENT: "no such file or directory. Check the path",
    errno.EACCES: "you may not read or write this. Change its permissions, or name another place",
    errno.EPERM: "you may not do this here. Change its permissions, or name another place",
    errno.EISDIR: "a directory, where a file is expected. Name a file",
    errno.ENOTDIR: "a part of this path is a file, not a directory. Check the path",
    errno.EEXIST: "a file stands where a directory is to be. Name another place, or move it away",
    errno.ENOTEMPTY: "this directory is not empty. Name another place",
    errno.EROFS: "a file system that can only be read. Name another place",
    errno.ENAMETOOLONG: "a name too long for this file system. Name a shorter one",
    errno.ELOOP: "symbolic links that lead in a circle. Mend them",
    errno.EMFILE: "too many files are open. Raise the limit (ulimit -n), or take fewer workers",
    errno.ENOSPC: "no space is left. Free some, or name a roomier place, and give the same command again",
    errno.EDQUOT: "your quota is used up. Free some space, or name another place, and give the same command again",
    errno.EFBIG: "a file larger than is allowed here (ulimit -f). Name another place",
    errno.EIO: "the disk or its driver failed. Look into the system's log",
    errno.ECONNREFUSED: "nobody answers there. Is the server up? Finished work is kept: give the same command again",
}
"""Words for what an operating system answers, by its number."""
NETWORK = ("httpx", "httpcore", "websockets", "anyio")
"""Packages that speak with the Prefect server here, and with nobody else."""
LOST = ("BrokenProcessPool", "WorkerCrashedError", "NodeDiedError", "KilledWorker", "LostWorkerError")
"""What runners raise where a process of theirs is gone, after Ray and Dask have tried its task again."""
MEMORY = (
    "not enough memory ({error}). Give the run more, or less to do at once: a smaller learner.chunk or learner.batch, "
    "fewer runtime.workers, a plan that keeps fewer states. Finished work is kept"
)


def explanation(error: BaseException) -> str | None:
    """The message for an error that a user's input, files, settings or machine caused; None for a bug."""
    name = type(error).__name__
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":  # torch's, which is not imported here
        return MEMORY.format(error=str(error).split("\n")[0] or name)
    if name in LOST:
        told = "was it killed, or out of memory? Finished work is kept: give the same command again"
        return f"a worker process of the task runner ended before its task did ({name}); {told}"
    if isinstance(error, ImportError):
        return _missing_package(error)
    if type(error).__module__.split(".")[0] in NETWORK:
        return f"the Prefect server does not answer ({name}: {error}). Finished work is kept: give the command again"
    if name == "PrefectHTTPStatusError":
        told = "Is PREFECT_API_AUTH_STRING its password (name:password)? Finished work is kept"
        return f"the Prefect server refused what it was asked ({str(error).splitlines()[0]}). {told}"
    return _machine(error) if isinstance(error, OSError) else None


def _missing_package(error: ImportError) -> str | None:
    package = (error.name or "").split(".")[0]
    if not package or package in OURS:
        return None
    return f"{error}. The package {package} is missing or broken here: install it again (pip install {package})"


def _path_in_hand(error: OSError) -> str:
    """The path that was being worked with: a failing read or write does not name its file."""
    paths = []
    trace = error.__traceback__
    while trace is not None:
        held = trace.tb_frame.f_locals.items()
        paths += [str(value) for name, value in held if isinstance(value, Path) or name in ("path", "url")]
        trace = trace.tb_next
    return paths[-1] if paths else ""


def _machine(error: OSError) -> str:
    where = str(error.filename2 or error.filename or _path_in_hand(error))  # of two, the one that was to be made
    if error.errno is None:  # a library's own: PIL, Arrow
        return f"{where}: {error}. It is damaged, or of another kind; MGD_TRACEBACK=1 shows which step read it"
    told = MACHINE.get(error.errno, f"{error.strerror}. MGD_TRACEBACK=1 shows what was tried")
    return f"{where}: {told}" if where else f"{error.strerror}: {told}"
