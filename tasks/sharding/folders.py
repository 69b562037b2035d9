"""Folders of pictures: with sidecars (`.txt`, `.caption`, `.json` of the same name), or a folder a class.

The tree is walked in the order of its names, links followed under their own names; hidden files and folders are passed
over, as are files that are neither pictures nor sidecars, and told. What img2dataset leaves as `files` is such a tree,
and so is a hub's snapshot of links. Names of a folder wait sorted on disk, so that memory does not grow with them.
"""

from __future__ import annotations

import heapq
import os
import pickle
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tasks.files.plurals import counted
from tasks.files.remote_files import STAMPS
from tasks.files.remotes import RemoteOptions, address, is_local, list_files
from tasks.sharding.attempts import Attempt, ShardingError
from tasks.sharding.options import ShardOptions

PICTURES = ("jpg", "jpeg", "png", "webp", "jfif", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif")
"""Extensions of pictures; those that are not JPEG, PNG or WebP become failures, by their name."""
TEXTS = ("txt", "caption")
SIDECARS = (*TEXTS, "json")
NO_CAPTION = re.compile(
    r"^(readme|licen[cs]e|copying|notice|classnames|classes|labels|attribution|credits)", re.IGNORECASE
)
RUN = 1 << 16
"""Names that are sorted in memory at once."""


class Entry(NamedTuple):
    """A file of a folder: stem and extension of its name, its address, size in bytes (-1: a link to nothing), stamp."""

    stem: str
    extension: str
    url: str
    size: int
    stamp: str


@dataclass
class Folder:
    """A tree of pictures at `base`, and what was met on the way and is none of it, by extension."""

    base: str
    options: ShardOptions
    remote: RemoteOptions
    passed_over: Counter[str] = field(default_factory=Counter)

    def attempts(self) -> Iterator[Attempt]:
        """The attempts, in the order of the names; raises ShardingError where no picture could have a caption."""
        captions = self.options.captions
        if captions == "auto":
            captions = "sidecars" if self._has_sidecars() else "folders"
            self.passed_over.clear()
        found, captioned = 0, 0
        for place, stem, entries in self._stems():
            for one in self._of_stem(place, stem, entries, captions):
                found += 1
                captioned += bool(one.caption or one.text or one.json)
                yield one
        if found and not captioned:
            raise ShardingError(
                f"{self.base}: {counted(found, 'picture')}, and no captions: neither files beside them (a.jpg, a.txt) "
                "nor folders named after classes. Put them there, name a listing (CSV, Parquet) that has them, or take "
                'the files\' names for captions (captions = "names")'
            )

    def any(self) -> bool:
        """Whether there is a picture in it."""
        return any(one.extension in PICTURES for _, _, entries in self._stems() for one in entries)

    def told(self) -> str:
        """A sentence on what was passed over; empty if nothing was."""
        kinds = ", ".join(f"{n:,} {kind or 'without extension'}" for kind, n in self.passed_over.most_common(5))
        n = sum(self.passed_over.values())
        told = f"{counted(n, 'file')} of {self.base} {'is' if n == 1 else 'are'} passed over: {kinds}" if n else ""
        return f"{told}. Captions in a table are read where it is the source" if self._tables() else told

    def _tables(self) -> int:
        return sum(self.passed_over[kind] for kind in ("csv", "tsv", "jsonl"))

    def _has_sidecars(self) -> bool:
        return any(
            {one.extension for one in entries} & {*SIDECARS} and {one.extension for one in entries} & {*PICTURES}
            for _, _, entries in self._stems()
        )

    def _of_stem(self, place: str, stem: str, entries: list[Entry], captions: str) -> Iterator[Attempt]:
        """The attempts of files that differ in their extensions only."""
        by = {one.extension: one for one in entries}
        pictures = [one for one in entries if one.extension in PICTURES]
        self.passed_over.update(one.extension for one in entries if one.extension not in (*PICTURES, *SIDECARS))
        sides = [by[name] for name in SIDECARS if name in by]
        if not pictures:
            if captions == "sidecars" and any(side.extension in TEXTS for side in sides) and not NO_CAPTION.match(stem):
                yield _attempt(place, sides[0], sides, error="missing_image: a caption without a picture")
            else:
                self.passed_over.update(side.extension for side in sides)
        for one in pictures:
            yield _attempt(place, one, sides if captions == "sidecars" else [], self._caption(place, stem, captions))

    def _caption(self, place: str, stem: str, captions: str) -> str | None:
        if captions == "sidecars":
            return None
        if captions == "names":
            return " ".join(re.split(r"[\s_]+", stem)).strip()
        return in_sentence(place.rpartition("/")[2], f"{place}/{stem}", self.options) if place else None

    def _stems(self) -> Iterator[tuple[str, str, list[Entry]]]:
        """(path below the base, stem, files) of everything in the tree."""
        for place, entries in tree(self.base, self.remote, self.passed_over):
            for stem, found in groupby(entries, itemgetter(0)):
                yield place, stem, list(found)


def in_sentence(name: str, key: str, options: ShardOptions) -> str:
    """A class in a sentence; of several sentences that which the hash of the picture's name says."""
    words = " ".join(re.split(r"[\s_]+", name)).strip()
    which = int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
    return options.templates[which % len(options.templates)].replace("{}", words)


def tree(base: str, remote: RemoteOptions, passed_over: Counter[str]) -> Iterator[tuple[str, Iterator[Entry]]]:
    """Every folder of a tree, by its path below `base`, with its files sorted by name; hidden ones are passed over."""
    listed = _local if is_local(base) else _remote
    yield from _below(base.rstrip("/") or "/", "", listed, remote, passed_over, ())


def _below(
    folder: str, place: str, listed: Any, remote: RemoteOptions, passed_over: Counter[str], above: tuple[str, ...]
) -> Iterator[tuple[str, Iterator[Entry]]]:
    real = os.path.realpath(folder) if is_local(folder) else folder
    if real in above:  # a link that leads back
        passed_over["link to a folder above it"] += 1
        return
    with tempfile.TemporaryFile(prefix="mgd-names-") as spill:
        folders: list[str] = []
        yield place, _in_order(listed(folder, remote, folders, passed_over), spill)
    for name in sorted(folders):
        inner = f"{folder.rstrip('/')}/{name}"
        yield from _below(inner, f"{place}/{name}".lstrip("/"), listed, remote, passed_over, (*above, real))


def _local(folder: str, remote: RemoteOptions, folders: list[str], passed_over: Counter[str]) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        for one in entries:
            if one.name.startswith("."):
                passed_over["hidden"] += 1
            elif one.is_dir():
                folders.append(one.name)
            else:
                yield _local_entry(one, passed_over)


def _local_entry(one: os.DirEntry[str], passed_over: Counter[str]) -> Entry:
    stem, _, extension = one.name.rpartition(".")
    try:
        found = one.stat()
    except OSError:
        return Entry(stem or one.name, extension.lower() if stem else "", one.path, -1, "dangling")
    if not one.is_file():  # a pipe or a device: named so, whatever its extension
        return Entry(one.name, "no file", one.path, 0, "")
    size, stamp = found.st_size, f"{found.st_size} {found.st_mtime_ns}"
    return Entry(stem or one.name, extension.lower() if stem else "", one.path, size, stamp)


def _remote(folder: str, remote: RemoteOptions, folders: list[str], passed_over: Counter[str]) -> Iterator[Entry]:
    for one in list_files(folder, remote):
        name = str(one["name"]).rstrip("/").rpartition("/")[2]
        if name.startswith(".") or not name:
            passed_over["hidden"] += bool(name)
        elif one["type"] == "directory":
            folders.append(name)
        else:
            stem, _, extension = name.rpartition(".")
            stamp = next((f"{one[key]}" for key in STAMPS if one.get(key) is not None), "")
            size = int(one.get("size") or 0)
            url = address(folder, str(one["name"]))
            yield Entry(stem or name, extension.lower() if stem else "", url, size, f"{size} {stamp}".strip())


def _in_order(entries: Iterator[Entry], spill: BinaryIO) -> Iterator[Entry]:
    """Entries sorted by stem and extension; sorted runs of them wait in a file."""
    starts: list[int] = []
    first = sorted(islice(entries, RUN))
    run = first
    while run:
        following = sorted(islice(entries, RUN))
        if following or starts:
            starts.append(spill.tell())
            for one in run:
                pickle.dump(tuple(one), spill)
            pickle.dump(None, spill)
        run = following
    return heapq.merge(*(_read_run(spill, at) for at in starts)) if starts else iter(first)


def _read_run(spill: BinaryIO, at: int) -> Iterator[Entry]:
    while True:
        spill.seek(at)
        rows: list[Entry] = []
        while len(rows) < 1000:
            row = pickle.load(spill)  # our own, of a moment ago, in a file without a name
            if row is None:
                yield from rows
                return
            rows.append(Entry(*row))
        at = spill.tell()
        yield from rows


def _attempt(place: str, one: Entry, sides: list[Entry], caption: str | None = None, error: str = "") -> Attempt:
    text = next((side.url for side in sides if side.extension in TEXTS), "")
    record = next((side.url for side in sides if side.extension == "json"), "")
    name = f"{place}/{Path(one.url).name}".lstrip("/")
    if one.size < 0:
        error = error or "missing_image: a link to nothing"
    stamp = "; ".join(entry.stamp for entry in (one, *sides))
    size = max(one.size, 0) + sum(max(side.size, 0) for side in sides)
    return Attempt("picture", one.url, name, stamp, size, caption=caption, text=text, json=record, error=error)
