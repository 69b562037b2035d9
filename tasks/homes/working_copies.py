"""Working copies: the local folder in which a home at a URL is worked on, and the ledger of what is alike in both.

The engine knows local paths only. A home at a URL has a folder of this machine, below `MGD_CACHE` (else
`~/.cache/mgd`), in `homes/`, called by a digest of the URL. Its `.remote/` says which URL it stands for, so any path
below it, in any process, finds its home; and holds the ledger, which knows of every file there its size and stamp, and
which local version is the same. A file may be there and not here yet (`at_hand` brings it). Nothing is taken for
removed because it is missing here: a cache may be emptied; what is removed on purpose is said so (`removed`).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from mgd_core.errors import UserError
from tasks.files.artefacts import publish_json, read_json
from tasks.files.local_files import URL

CACHE = "MGD_CACHE"
OURS = ".remote"
UNFIT = {"http", "https", "memory", "data"}
"""Protocols of places that nothing can be left in."""
LOCAL_PARTS = re.compile(
    r"(^|/)(\.|decoded-|tokens-|columns-|states/|observed/|transfer-trial/)|^(cache|logs)/|\.lock$|//"
)
"""What stays on the machine that made it: locks, temporary files and Prefect's state (their names begin with a dot, as
`..` does), what is made of pools or seen of them, checkpoints within a training, the cache of shards, logs."""
RUN = re.compile(r"(?:runs|studies|tables/[^/]+)/(?:run=)?([^/]+)/|tables/_manifests/(.+)\.json$")
TABLES = """
create table if not exists files (path text primary key, size integer, stamp text, modified real, version text);
create table if not exists gone (path text primary key);
"""
BELOW = "(path = :path or path >= :path || '/' and path < :path || '0')"


class NoHome(UserError, ValueError):
    """A URL below which there can be no home."""


class Entry(NamedTuple):
    """A file in a store: bytes, the store's stamp of its version, and when it was written, seconds since 1970."""

    size: int
    stamp: str
    modified: float


class Row(NamedTuple):
    """A file as the ledger knows it; ``version``: of the local file that is the same, None where there is none."""

    entry: Entry
    version: str | None


@dataclass(frozen=True)
class WorkingCopy:
    """The local folder ``root`` of the home at ``url``."""

    root: Path
    url: str

    @contextmanager
    def ledger(self) -> Iterator[sqlite3.Connection]:
        """The ledger, in one transaction."""
        with closing(sqlite3.connect(self.root / OURS / "ledger.sqlite", timeout=600)) as connection, connection:
            connection.executescript(TABLES)
            yield connection

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process of this machine at a time brings and sends."""
        with open(self.root / OURS / "lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def rows(self, below: str = "") -> dict[str, Row]:
        """The ledger's files, all or those below a path, by path."""
        with self.ledger() as ledger:
            where = f" where {BELOW}" if below else ""
            found = ledger.execute(f"select * from files{where}", {"path": below} if below else {})
            return {path: Row(Entry(size, stamp, modified), version) for path, size, stamp, modified, version in found}

    def note(self, alike: Mapping[str, Row]) -> None:
        """Enter files."""
        with self.ledger() as ledger:
            rows = [(path, *row.entry, row.version) for path, row in alike.items()]
            ledger.executemany("insert or replace into files values (?, ?, ?, ?, ?)", rows)

    def forget(self, path: str) -> None:
        """Strike out a file."""
        with self.ledger() as ledger:
            for table in ("files", "gone"):
                ledger.execute(f"delete from {table} where path = ?", [path])

    def gone(self) -> list[str]:
        """Files that were removed here on purpose and may still be there."""
        with self.ledger() as ledger:
            return [path for (path,) in ledger.execute("select path from gone order by path")]

    def relative(self, path: Path) -> str:
        """A path as the ledger and the store call it."""
        return "" if path == self.root else path.relative_to(self.root).as_posix()


fetchers: list[Callable[[WorkingCopy, list[str]], None]] = []
"""What brings files: `syncing`, loaded by whoever opened the copy, and costly to load where there is none."""


def working_copy(url: str) -> WorkingCopy:
    """The working copy of the home at a URL, made if it is not there; asks no store. Raises NoHome."""
    protocol, _, rest = url.partition("://")
    if not rest or protocol.lower() in UNFIT:
        raise NoHome(f"{url!r}: no home can be there. Name a directory, or an address of a store, as s3://bucket/home")
    url = f"{protocol.lower()}://{rest.rstrip('/')}"
    cache = Path(os.environ.get(CACHE) or "~/.cache/mgd").expanduser().resolve()
    root = cache / "homes" / blake2b(url.encode(), digest_size=8).hexdigest()
    copy = WorkingCopy(root, url)
    if not (root / OURS / "home.json").exists():
        publish_json(root / OURS / "home.json", {"url": url})
    return copy


def copy_of(path: str | Path) -> WorkingCopy | None:
    """The working copy that a path lies in; None: it is an ordinary local one."""
    whole = Path(os.path.abspath(path))
    for folder in (whole, *whole.parents):
        if (folder / OURS / "home.json").is_file():
            return WorkingCopy(folder, str(read_json(folder / OURS / "home.json")["url"]))
    return None


def home_path(home: str | Path) -> Path:
    """Where a home is worked on: a URL's working copy, or the path itself."""
    return working_copy(str(home)).root if URL.match(str(home)) else Path(home)


def shown(home: str | Path) -> str:
    """A home as its user called it: the URL, where it has one."""
    copy = copy_of(home)
    return str(home) if copy is None else copy.url


def at_hand(*paths: Path) -> None:
    """Bring what of these files and folders is there and not here yet. Of an ordinary home: nothing."""
    for path in paths:
        if not path.is_file() and (copy := copy_of(path)) is not None:
            absent = [name for name, row in copy.rows(copy.relative(path)).items() if row.version is None]
            if absent:
                fetchers[0](copy, absent)


def removed(path: Path) -> None:
    """Note, before it is removed, that a file or folder of a home is not wanted: at a URL it goes there too."""
    copy = copy_of(path)
    if copy is not None:
        with copy.ledger() as ledger:
            told = {"path": copy.relative(path)}
            if path.is_file():  # it may be on its way there
                ledger.execute("insert or ignore into gone values (:path)", told)
            ledger.execute(f"insert or ignore into gone select path from files where {BELOW}", told)
            ledger.execute(f"delete from files where {BELOW}", told)


def elsewhere(path: Path) -> list[Entry]:
    """Files below a path that are there and not here."""
    copy = copy_of(path)
    return [] if copy is None else [r.entry for r in copy.rows(copy.relative(path)).values() if r.version is None]


def run_of(path: str) -> str | None:
    """The run, study or evaluation that a file is of, by its path; None: of the home."""
    match = RUN.match(path)
    return (match[1] or match[2]) if match else None


def version_of(stat: os.stat_result) -> str:
    """A local file's version: another one after each publication."""
    return json.dumps([stat.st_ino, stat.st_mtime_ns, stat.st_size])
