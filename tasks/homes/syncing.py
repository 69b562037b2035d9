"""What a home's URL and its working copy have, made alike: `pull` what others wrote, `push` what was written here.

Files come to be whole, data before the record that names it, and a `push` keeps that order there: it notes which
records there are, then sends the data that is new, then those records, units' first and the others as they came to be.
So whatever is killed when, the URL holds what a machine may have held that was killed so; a unit whose record is not
there is done again, to the same bytes. What a `push` could not send, the next one finds by itself: a local version that
the ledger does not know.

Where both changed, the URL's is taken, for its writer had the run's lease, and beside such a data file the records that
were not sent go too: their units are done again. Records and small files are brought at once, large ones when they are
asked for (`working_copies.at_hand`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from time import time

from mgd_core.errors import UserError
from tasks.files.progress import announce, say
from tasks.homes.stores import Store, StoreRefuses
from tasks.homes.working_copies import LOCAL_PARTS, Entry, Row, WorkingCopy, fetchers, run_of, version_of

SMALL = 1 << 20
"""Bytes of the largest file that is brought unasked."""
ALWAYS = (".json", ".html", ".toml")
TRANSFERS = 8
"""Files that are under way together."""
UNITS = re.compile("/(work|parts)/|^indexed/")
"""Records of units, each of which says by its key what it was made of: among themselves in any order."""
TICK = 0.02
"""Seconds that the clock of a file system may lag behind."""


class HomeGone(UserError, RuntimeError):
    """A URL with nothing below it, where there was a home."""


@dataclass
class Sent:
    """What a push sent, and the runs whose files it left, because this process has not their leases."""

    files: int = 0
    bytes: int = 0
    left: set[str] = field(default_factory=set)


def pull(copy: WorkingCopy, run: str | None = None) -> None:
    """Bring what was written there since, of all or of one run, and remove what is gone there."""
    store = Store(copy.url)
    with copy.locked():
        listed = {path: entry for path, entry in store.list().items() if not LOCAL_PARTS.search(path)}
        rows, gone = copy.rows(), set(copy.gone())
        if rows and not listed:
            raise HomeGone(
                f"{copy.url}: nothing is there, and a home was. Is it the right store (its endpoint, its keys)? If it "
                f"was removed on purpose, remove {copy.root} as well"
            )
        mine = [path for path in listed if path not in gone and run in (None, run_of(path))]
        wanted, dropped = [], list[str]()
        for path in mine:
            row, here = rows.get(path), _version(copy.root / path)
            if row is not None and row.entry.stamp == listed[path].stamp:
                if here is None and _at_once(path, listed[path]):
                    wanted.append(path)
            elif here is not None and _same(copy.root / path, listed[path]):
                copy.note({path: Row(listed[path], here)})
            elif here is not None or _at_once(path, listed[path]):
                wanted.append(path)
                if here is not None and (row is None or row.version != here):
                    dropped += [path, *_unsent_records(copy, path, rows)]
            else:
                copy.note({path: Row(listed[path], None)})
                (copy.root / path).parent.mkdir(parents=True, exist_ok=True)
        for path in dropped:
            (copy.root / path).unlink(missing_ok=True)
            say(f"{copy.url}/{path}: was written elsewhere meanwhile, so what this machine had not sent is not used")
        _fetch(copy, sorted({*wanted, *(path for path in dropped if path in listed)}))
        _remove_here(copy, [path for path in rows if path not in listed and run in (None, run_of(path))])


def push(copy: WorkingCopy, held: Callable[[str], bool], last: bool = False) -> Sent:
    """Send what is new here: files of the home, and of runs that are ``held``. ``last``: nobody writes meanwhile."""
    store, sent, began = Store(copy.url), Sent(), time() - TICK
    with copy.locked():
        rows, gone = copy.rows(), copy.gone()
        changed = [one for one in _changed(copy, rows, sent, held, ".json") if last or one[1].st_mtime <= began]
        records = [
            (path, stat, content) for path, stat in changed if (content := _content(copy.root / path)) is not None
        ]
        data = list(_changed(copy, rows, sent, held, ""))
        for path in sorted(gone, key=lambda path: not path.endswith(".json")):
            if (run := run_of(path)) is not None and not held(run):
                sent.left.add(run)
            elif not (copy.root / path).exists():
                store.remove(path)
                copy.forget(path)

        def send(path: str, stat: os.stat_result, content: bytes | None = None) -> None:
            try:
                entry = store.send(path, copy.root / path if content is None else content)
            except (FileNotFoundError, StoreRefuses):
                if (copy.root / path).exists():
                    raise
                return  # removed here since
            if entry.size == stat.st_size:
                copy.note({path: Row(entry, version_of(stat))})
                sent.files, sent.bytes = sent.files + 1, sent.bytes + entry.size

        together = [one for one in records if UNITS.search(one[0])]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            for wave in (data, together):
                for done, _ in enumerate(pool.map(lambda one: send(*one), wave), start=1):
                    if last:
                        announce(f"send to {copy.url}", done, len(wave))
        for one in sorted((one for one in records if one not in together), key=lambda one: one[1].st_mtime_ns):
            send(*one)
    return sent


def fetch(copy: WorkingCopy, paths: list[str]) -> None:
    """Bring files that are there and not here."""
    _fetch(copy, paths)


fetchers.append(fetch)


def _fetch(copy: WorkingCopy, paths: list[str]) -> None:
    store = Store(copy.url)

    def bring(path: str) -> None:
        with suppress(FileNotFoundError):  # removed there meanwhile
            entry = store.fetch(path, copy.root / path)
            copy.note({path: Row(entry, _version(copy.root / path))})

    # Records last, as they came to be: whoever is killed here finds no record without its data.
    ordered = sorted(paths, key=lambda path: path.endswith(".json"))
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for done, _ in enumerate(pool.map(bring, ordered), start=1):
            announce(f"bring from {copy.url}", done, len(ordered))


def _remove_here(copy: WorkingCopy, paths: Iterable[str]) -> None:
    """Remove what was removed there; of a run that is gone there, everything."""
    rows = list(paths)
    for path in rows:
        (copy.root / path).unlink(missing_ok=True)
        copy.forget(path)
    for run in {path.split("/")[1] for path in rows if path.startswith("runs/") and path.endswith("/run.json")}:
        shutil.rmtree(copy.root / "runs" / run, ignore_errors=True)


def _changed(
    copy: WorkingCopy, rows: dict[str, Row], sent: Sent, held: Callable[[str], bool], suffix: str
) -> Iterator[tuple[str, os.stat_result]]:
    """Files whose local version the ledger does not know: records (.json), or all others."""
    for folder, folders, names in os.walk(copy.root):
        below = copy.relative(Path(folder))
        prefix = f"{below}/" if below else ""
        folders[:] = [name for name in folders if not LOCAL_PARTS.search(f"{prefix}{name}/")]
        for name in names:
            path = f"{prefix}{name}"
            if name.endswith(".json") != bool(suffix) or LOCAL_PARTS.search(path):
                continue
            try:
                stat = os.stat(copy.root / path)
            except FileNotFoundError:
                continue
            row, run = rows.get(path), run_of(path)
            if row is not None and row.version == version_of(stat):
                continue
            if run is None or held(run):
                yield path, stat
            else:
                sent.left.add(run)


def _unsent_records(copy: WorkingCopy, path: str, rows: dict[str, Row]) -> list[str]:
    """Records beside a data file that were written here and not sent."""
    if path.endswith(".json"):
        return []
    beside = [copy.relative(one) for one in (copy.root / path).parent.glob("*.json")]
    return [one for one in beside if one not in rows or rows[one].version != _version(copy.root / one)]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _version(path: Path) -> str | None:
    try:
        return version_of(os.stat(path))
    except FileNotFoundError:
        return None


def _at_once(path: str, entry: Entry) -> bool:
    return entry.size <= SMALL or path.endswith(ALWAYS)


def _same(path: Path, entry: Entry) -> bool:
    """Whether a file has the bytes that a store's stamp speaks of, where the stamp is of the bytes (S3's is mostly)."""
    stamp = entry.stamp.partition("=")[2].strip('"')
    return path.stat().st_size == entry.size and md5(path.read_bytes(), usedforsecurity=False).hexdigest() == stamp
