"""A home opened: the one door through which commands and flows come to a home, wherever it is.

A local home is what it is. Of one at a URL, the working copy is brought up to date; who may write has a share of the
home's lease from then on, sends what is done every few seconds, and the rest at the end. A refusal of the store, or a
lost lease, is told, and stops the work as Ctrl-C does (where that is ignored, as by a shell's job in the background,
the work ends first, and nothing more is sent); what is done is kept, and the same command sends it and goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mgd_core.errors import UserError
from tasks.files.progress import begin, say
from tasks.files.remotes import RemoteFault
from tasks.homes.leases import BEAT, DEAD, Lease, now
from tasks.homes.syncing import pull, push
from tasks.homes.working_copies import WorkingCopy, copy_of, home_path

EVERY = 5.0
"""Seconds between two looks at what is new here; more where looking takes long."""
_sessions: dict[Path, Session] = {}


class Session:
    """A command's or a flow's use of a working copy that it may write to."""

    def __init__(self, copy: WorkingCopy) -> None:
        self.copy, self.leases = copy, dict[str, Lease]()
        self.fault: Exception | None = None
        self._taking, self._guard = threading.RLock(), threading.RLock()
        self._sender, self._renewer = _Again(self, self._send), _Again(self, self._renew)

    def __enter__(self) -> Session:
        self.take("home", "the home", shared=True)
        self._sender.start()
        self._renewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._sender.end()
        try:
            if self.fault is None:
                self._send_all()
        except UserError as error:
            if kind is None:
                raise
            say(str(error))
        finally:
            self._renewer.end()
            for lease in self.leases.values():
                with suppress(UserError):  # who waits for it then waits as for a dead one
                    lease.drop()
        if self.fault is not None:
            raise self.fault

    def take(self, name: str, what: str, shared: bool = False, patience: float | None = None) -> bool:
        """Have a lease until the end; whether it was not had before."""
        with self._taking:
            if name in self.leases:
                return False
            lease = Lease(self.copy, name, what, shared)
            lease.take(patience)
            with self._guard:
                self.leases[name] = lease
            return True

    def own(self, run: str) -> None:
        """Have the lease of a run, and what others wrote of it."""
        if self.take(f"run-{run}", f"run {run}"):
            pull(self.copy, run)

    def own_home(self) -> None:
        """Be alone in the home; raises LeaseHeld."""
        with self._guard:
            self.leases.pop("home").drop()
        self.take("home", "the home", patience=DEAD + 1)

    def _held(self, run: str) -> bool:
        return f"run-{run}" in self.leases or ("home" in self.leases and not self.leases["home"].shared)

    def _send(self) -> None:
        push(self.copy, self._held)

    def _send_all(self) -> None:
        begin(f"send what is new to {self.copy.url}")
        sent = push(self.copy, self._held, last=True)
        for run in sorted(sent.left):
            self.own(run)
        if sent.left:
            push(self.copy, self._held, last=True)

    def _renew(self) -> None:
        with self._guard:
            for lease in self.leases.values():
                if now() - lease.renewed > BEAT:
                    lease.renew()


class _Again(threading.Thread):
    """Does a session's work every few seconds; what can not be done again becomes its fault and ends it."""

    def __init__(self, session: Session, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._session, self._work, self._ended = session, work, threading.Event()

    def run(self) -> None:
        """In the thread."""
        while not self._ended.wait(EVERY):
            try:
                self._work()
            except RemoteFault as error:
                say(f"{error} (tried again)")
            except Exception as error:
                self._session.fault = error
                say(str(error))
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does, which ends waits too
                return

    def end(self) -> None:
        """Wait for it to end."""
        self._ended.set()
        self.join()


@contextmanager
def opened(home: str | Path, writes: bool = True) -> Iterator[Path]:
    """Where a home, named by a URL, a path or its working copy's path, is worked on in the block."""
    path = home_path(home)
    copy = copy_of(path)
    if copy is None or copy.root in _sessions:
        yield path
        return
    begin(f"look at {copy.url}")
    pull(copy)
    if not writes:
        yield path
        return
    with Session(copy) as session:
        _sessions[copy.root] = session
        try:
            yield path
        finally:
            del _sessions[copy.root]


def own(home: Path, run: str) -> None:
    """Before a run of a home at a URL is written to: have its lease, to the end of the command, or wait for it."""
    session = _session(home)
    if session is not None:
        session.own(run)


def own_home(home: Path) -> bool:
    """Before a home at a URL is cleared up: be alone in it; False where it is an ordinary one. Raises LeaseHeld."""
    session = _session(home)
    if session is not None:
        session.own_home()
    return session is not None


def _session(home: Path) -> Session | None:
    copy = copy_of(home) if _sessions else None
    return _sessions.get(copy.root) if copy is not None else None
