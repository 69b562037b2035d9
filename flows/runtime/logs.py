"""What was said and done in a home, in ``<home>/logs``: every process writes into one file of bounded size.

`mgd.log` has a line for each command, and all that flows and tasks say, whoever started them: a command, `mgd serve`, a
worker, a process of a task runner on the same machine. At MOST bytes it becomes `mgd.log.1`, and so on up to KEPT. The
local servers write `server.log` and `pages.log` beside it, which are turned over when a server starts.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from flows.runtime.environment import prefect_home
from flows.runtime.locks import exclusive

MOST, KEPT = 4 << 20, 5
FORM = "%(asctime)s %(process)d %(levelname)s %(where)s%(message)s"
VARIABLE = "MGD_LOGS"
"""Where the processes that a flow starts find the folder."""
LOGGERS = ("prefect", "mgd")


def logs_folder(home: Path) -> Path:
    """Where a home's logs are: beside the state of its Prefect server."""
    return prefect_home(home).parent / "logs"


@contextmanager
def logged(home: Path) -> Iterator[None]:
    """Keep what flows say in the block, here and in processes that it starts."""
    folder, before = str(logs_folder(home)), os.environ.get(VARIABLE)
    if folder == before:
        yield
        return
    os.environ[VARIABLE] = folder
    join_log()
    try:
        yield
    finally:
        _leave()
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def join_log() -> None:
    """Write what is logged in this process into the log of the home that it works in, if it works in one. Prefect takes
    all handlers away when it sets up its own, so this is asked for again and again."""
    folder = os.environ.get(VARIABLE)
    if folder and not any(one.folder == folder for one in _joined(LOGGERS[0])):
        _leave()
        handler = HomeLog(Path(folder))
        for name in LOGGERS:
            logging.getLogger(name).addHandler(handler)


def _leave() -> None:
    for name in LOGGERS:
        for handler in _joined(name):
            logging.getLogger(name).removeHandler(handler)
            handler.close()


def _joined(name: str) -> "list[HomeLog]":
    return [one for one in logging.getLogger(name).handlers if isinstance(one, HomeLog)]


def note_command(home: Path, told: str, failed: BaseException | None = None) -> None:
    """A line on a command that ended, and the traceback of what it fell over; nothing where there is no such home."""
    if home.is_dir():
        with logged(home):
            logger = logging.getLogger("mgd")
            logger.setLevel(logging.INFO)
            logger.propagate = False
            logger.info(told, exc_info=failed)


def turned(path: Path) -> Path:
    """A server's log, ready for one more start: what is long becomes the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MOST:
        os.replace(path, path.with_name(f"{path.name}.1"))
    return path


class HomeLog(RotatingFileHandler):
    """The log of a home, which other processes write and turn over as well."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        super().__init__(folder / "mgd.log", maxBytes=MOST, backupCount=KEPT, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter(FORM))
        self.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, whole, whoever else does."""
        run = getattr(record, "task_run_name", getattr(record, "flow_run_name", ""))  # as Prefect's loggers name them
        record.where = f"{run}: " if run else ""
        try:
            with exclusive(Path(self.folder) / ".lock"):
                if self.stream is not None and not self._is_current(self.stream):
                    self.stream.close()
                    self.stream = None  # opened anew for the next record
                super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: the work does not need its log."""

    def _is_current(self, stream: TextIO) -> bool:
        try:
            return os.path.samestat(os.stat(self.baseFilename), os.fstat(stream.fileno()))
        except OSError:
            return False
