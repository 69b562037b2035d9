"""Leases: who works on what, among machines that share nothing but a store.

Whoever wants a lease leaves a claim, `.leases/<name>/<owner>`, and then lists: it has the lease if it sees no other
claim, and takes its own back if it does, to come again after a while of random length. As a store lists what was
written before (S3, GCS, file systems), two never both see themselves alone. Shared claims do not exclude each other.

A claim is written anew every `BEAT` seconds. One that stays as it is for `DEAD` seconds by the watcher's own clock (no
two clocks are compared) is of a dead machine, and removed by whoever waits; one of a process of this machine is as soon
as that is gone. A holder that could not renew for `SURE` seconds, or finds its claim removed, holds nothing any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from mgd_core.errors import UserError
from tasks.files.progress import say
from tasks.files.remotes import RemoteOptions
from tasks.homes.stores import Store
from tasks.homes.working_copies import OURS, WorkingCopy

BEAT, SURE, DEAD = 20.0, 120.0, 180.0
"""Seconds between two renewals; after which a holder gives up; after which others hold it for dead."""
LOOK = 2.0
"""Seconds between two looks at a lease that another has."""
IMPATIENT = RemoteOptions(attempts=1, timeout_s=15)


class LeaseHeld(UserError, RuntimeError):
    """Another machine, or process, has the lease."""


class LeaseLost(UserError, RuntimeError):
    """The lease could not be renewed in time."""


@dataclass
class Lease:
    """A claim of this process on ``name`` of a home. ``shared``: beside other shared ones."""

    copy: WorkingCopy
    name: str
    what: str
    shared: bool = False
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
    renewed: float = 0.0
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def take(self, patience: float | None = None) -> None:
        """Have the lease, waiting for whoever has it; raises LeaseHeld after ``patience`` seconds."""
        began, told = now(), False
        self.mine.parent.mkdir(parents=True, exist_ok=True)
        self._alive = os.open(self.mine, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        while True:
            others = self._others()
            if not others:
                self._write(Store(self.copy.url))
                if not self._others():
                    return
                Store(self.copy.url).remove(self.path)
                time.sleep(random.uniform(0.1, 1.0))
                continue
            who = self._told(others[0])
            if patience is not None and now() - began > patience:
                self.drop()
                raise LeaseHeld(f"{self.copy.url}: {self.what} is in use by {who}; wait for it to end, or stop it")
            if not told:
                say(f"{self.copy.url}: {self.what} is in use by {who}; waiting for its end, or {DEAD:g} s of silence")
                told = True
            time.sleep(LOOK)

    def renew(self) -> None:
        """Say that this process lives; raises LeaseLost when that came too late."""
        try:
            if self.path not in Store(self.copy.url, IMPATIENT).list(self.folder):
                raise LeaseLost(self._lost("it was taken for dead and another may have taken over"))
            self._write(Store(self.copy.url, IMPATIENT))
        except LeaseLost:
            raise
        except UserError as error:
            if now() - self.renewed > SURE:
                raise LeaseLost(self._lost(f"for {SURE:g} s the store could not be told: {error}")) from error

    def drop(self) -> None:
        """Let go."""
        Store(self.copy.url).remove(self.path)
        self.mine.unlink(missing_ok=True)
        os.close(self._alive)

    @property
    def folder(self) -> str:
        """Where the claims of this lease lie."""
        return f".leases/{self.name}"

    @property
    def path(self) -> str:
        """Where this claim lies."""
        return f"{self.folder}/{self.owner}.{'shared' if self.shared else 'alone'}"

    @property
    def mine(self) -> Path:
        """The local file that this process holds locked while it lives."""
        return self.copy.root / OURS / "claims" / self.owner

    def _write(self, store: Store) -> None:
        beat = {"host": socket.gethostname(), "pid": os.getpid(), "silent_after": DEAD, "at": time.time()}
        store.put(self.path, json.dumps(beat).encode())
        self.renewed = now()

    def _others(self) -> list[str]:
        """Claims in the way, those of the dead removed."""
        store, found = Store(self.copy.url), list[str]()
        for path, entry in store.list(self.folder).items():
            if path == self.path or (self.shared and path.endswith(".shared")):
                continue
            stamp, since = self._seen.get(path, ("", 0.0))
            if stamp != entry.stamp:
                since = now()
                self._seen[path] = (entry.stamp, since)
            if now() - since > DEAD or self._died_here(path):
                store.remove(path)
            else:
                found.append(path)
        return found

    def _died_here(self, path: str) -> bool:
        """Whether a claim is of a process of this machine that is gone."""
        local = self.copy.root / OURS / "claims" / path.rpartition("/")[2].rpartition(".")[0]
        try:
            descriptor = os.open(local, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            local.unlink(missing_ok=True)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)

    def _told(self, path: str) -> str:
        try:
            said = json.loads(Store(self.copy.url).read(path))
            return f"process {said['pid']} of {said['host']}"
        except (OSError, ValueError, LookupError):
            return path.rpartition("/")[2]

    def _lost(self, why: str) -> str:
        return (
            f"{self.copy.url}: the lease on {self.what} is lost, {why}. Nothing more is written there. What is done is "
            "kept on this machine: give the same command again"
        )


def now() -> float:
    """Seconds that went by, those in which the machine slept too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
