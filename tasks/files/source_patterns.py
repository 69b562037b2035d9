"""Source patterns: the files that a user means by a path, directory, glob, brace pattern, URL, or several of them.

What is there under the very name that was given is meant; else `a::b` is two sources, as webdataset and open_clip have
it, `{a,b}` and `{00..99}` are expanded, and `*`, `?`, `[…]`, `**` match names. The `?` of a web address begins its
query. A directory's files are those whose names end as asked for; what looks like data but does not is counted and
named (`Files.passed_over`), and a link to nothing stops, by its name: nothing is left out in silence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from braceexpand import braceexpand
from fsspec import available_protocols

from mgd_core.errors import UserError
from tasks.files import local_files
from tasks.files.local_files import DANGLING, MAGIC
from tasks.files.remotes import (
    RemoteOptions,
    address,
    file_info,
    is_local,
    list_files,
    patiently,
    split_query,
    store_of,
)

TARS = ("*.tar",)
MOST = 1_000_000
"""Names that the braces of one pattern may stand for."""
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\}")
SHOWN = 5
"""Names of files that are passed over, in a message."""
# Formats of data and archives; in front of them may stand another, and behind a tar's what a download left.
DATA = re.compile(r"\.(tar([.~-].*)?|tgz|tbz2?|txz|tzst|zip|rar|7z|parquet|jsonl?|ndjson|csv|tsv|arrow|feather)$")
PACKED = re.compile(r"\.(jsonl?|ndjson|csv|tsv|txt|parquet)\.\w+$")
# Beside tars, tables and stats are theirs; only other archives could hold samples. Where no tar is, all data is told.
ARCHIVES = re.compile(r"\.(tar([.~-].*)?|tgz|tbz2?|txz|tzst|zip|rar|7z)$")


class SourceError(UserError, ValueError):
    """Nothing usable where a pool should be; the message says what was looked for and where."""


@dataclass(frozen=True)
class Files:
    """Addresses of files (local ones as absolute paths, others as URLs), and of what was passed over beside them."""

    urls: tuple[str, ...]
    passed_over: tuple[str, ...] = ()

    def told(self, names: Sequence[str] = TARS) -> str:
        """A sentence on what was passed over; empty if nothing was."""
        if not self.passed_over:
            return ""
        n, shown = len(self.passed_over), ", ".join(self.passed_over[:SHOWN])
        more = f" and {n - SHOWN:,} more" if n > SHOWN else ""
        what = f"{n:,} file is" if n == 1 else f"{n:,} files are"
        read = ", ".join(names)
        return f"{what} passed over, since only files {read} of the directory itself are read: {shown}{more}"


def find_tars(source: str | Path | Sequence[str], options: RemoteOptions | None = None) -> Files:
    """The tars of `source`, each once.

    A directory's tars are its `*.tar`, or those of its `shards` folder, which is what DataComp's downloader makes. They
    and a pattern's come sorted by name, a list's in its own order. Raises SourceError when one names nothing.
    """
    hint = (
        "A pool is a directory with tiles.png and table.parquet, or tars: a directory that holds *.tar (or "
        "shards/*.tar), a glob, a brace pattern like shards/{00000..00009}.tar, or a URL"
    )
    return find_sources(source, TARS, options, "tar", hint, "shards")


def find_sources(
    source: str | Path | Sequence[str],
    names: Sequence[str],
    options: RemoteOptions | None,
    what: str,
    hint: str,
    folder: str = "",
) -> Files:
    """The files of `source` that fit `names`, each once; `folder`: where else in a directory they may be. Raises
    SourceError, with the `hint`, when one of its patterns names nothing."""
    found, passed = dict[str, None](), dict[str, None]()
    patterns = each_source(source)
    if not patterns:
        raise SourceError(f"the pool names no {what}. {hint}")
    for one in patterns:
        here = find(one, names, options)
        if not here.urls and folder and (os.path.isdir(one) or not MAGIC & set(split_query(one)[0])):
            below = find(f"{one.rstrip('/')}/{folder}", names, options)
            here = Files(below.urls, here.passed_over + below.passed_over)
        if not here.urls:
            raise SourceError(". ".join(part for part in (f"no {what} at {one!r}", here.told(names), hint) if part))
        found |= dict.fromkeys(here.urls)
        passed |= dict.fromkeys(here.passed_over)
    return Files(tuple(found), tuple(name for name in passed if name not in found))


def each_source(source: str | Path | Sequence[str]) -> list[str]:
    """The sources that a string or list of them names, `a::b` and braces taken apart.

    Raises SourceError for fsspec's chained URLs, and for braces that do not match.
    """
    entries = [str(source)] if isinstance(source, str | Path) else [str(entry) for entry in source]
    for entry in entries:
        if "\0" in entry:
            raise SourceError(f"{entry!r}: a zero byte (\\0) stands in it, which no name can have. Check the spelling")
    return [one for entry in entries for part in _split(entry) for one in _expanded(part)]


def find_files(pattern: str, names: str | Sequence[str], options: RemoteOptions | None = None) -> list[str]:
    """Addresses of a glob's files, of a directory's whose name matches `names`, or of the one file, sorted."""
    return list(find(pattern, [names] if isinstance(names, str) else names, options).urls)


def find(pattern: str, names: Sequence[str], options: RemoteOptions | None = None) -> Files:
    """What one pattern names, sorted by which of `names` fits, then by name; raises SourceError for a link to nothing
    among it."""
    if is_local(pattern):
        return _find_local(_local(pattern), names, options)
    fs, path = store_of(pattern)
    head, query = split_query(pattern)
    parent, _, last = head.rstrip("/").rpartition("/")
    if MAGIC & set(parent):
        fs.invalidate_cache()
        listed = patiently(pattern, "list it", options, lambda: fs.glob(path))
        return _sorted([address(pattern, str(name)) for name in listed], names, True)
    if MAGIC & set(last):
        return _sorted(_names_in(parent, options, last), names, True)
    if not query and not any(fnmatchcase(last, name) for name in names):
        inside = _sorted(_names_in(pattern, options), names)
        if inside.urls:
            return inside
    return Files(tuple(_the_file(pattern, path, options)))


def _find_local(path: str, names: Sequence[str], options: RemoteOptions | None) -> Files:
    _, rest = local_files.literal_prefix(path)
    if rest:
        return _sorted(_none_dangling(local_files.glob(path)), names, True) if MAGIC & set(rest) else Files(())
    if not os.path.isdir(path):
        return Files(tuple(_none_dangling([path])))
    entries = list_files(path, options)
    fitting = [str(e["name"]) for e in entries if e["type"] == DANGLING and _place(str(e["name"]), names) is not None]
    _none_dangling(fitting)
    found = _sorted([str(e["name"]) for e in entries if e["type"] == "file"], names)
    below = [str(e["name"]) for e in entries if e["type"] == "directory"] if found.urls else []
    hidden = [one for folder in below for one in sorted(_listdir(folder)) if _place(one, names) is not None]
    # A directory or a pipe that is called like one: named, too.
    no_files = [str(e["name"]) for e in entries if e["type"] not in ("file", DANGLING)]
    no_files = [name for name in no_files if _place(name, names) is not None]
    return Files(found.urls, (*found.passed_over, *sorted(no_files), *hidden))


def _sorted(urls: Iterable[str], names: Sequence[str], any_name: bool = False) -> Files:
    """The addresses that fit, in order, and those beside them that look like data. `any_name`: a pattern chose them, so
    where none fits all are meant."""
    places = {url: _place(url, names) for url in sorted(urls)}
    fitting = sorted((place, url) for url, place in places.items() if place is not None)
    if any_name and not fitting:
        return Files(tuple(places))
    looks = ARCHIVES.search if tuple(names) == TARS and fitting else DATA.search
    others = [url for url, place in places.items() if place is None]
    passed = [url for url in others if looks(url.lower()) or (looks == DATA.search and PACKED.search(url.lower()))]
    return Files(tuple(url for _, url in fitting), tuple(others if any_name else passed))


def _place(url: str, names: Sequence[str]) -> int | None:
    last = url.rpartition("/")[2]
    return next((i for i, name in enumerate(names) if fnmatchcase(last, name)), None)


def _none_dangling(paths: list[str]) -> list[str]:
    for path in paths:
        if not os.path.exists(path):
            target = os.readlink(path) if os.path.islink(path) else "nothing"
            raise SourceError(
                f"{path}: a link to {target}, where nothing can be read. The download is not complete, or the file was "
                "moved: fetch it again, or remove the link to go on without"
            )
    return paths


def _names_in(folder: str, options: RemoteOptions | None, fitting: str = "*") -> list[str]:
    names = [str(entry["name"]) for entry in list_files(folder, options) if entry["type"] == "file"]
    return [address(folder, name) for name in names if fnmatchcase(name.rpartition("/")[2], fitting)]


def _listdir(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []


def _the_file(pattern: str, path: str, options: RemoteOptions | None) -> list[str]:
    try:
        info = file_info(pattern, options)
    except (FileNotFoundError, NotADirectoryError):
        return []
    # A web server's page about a directory is no file of it.
    is_page = str(info.get("mimetype", "")).startswith("text/html")
    return [address(pattern, path)] if info["type"] == "file" and not is_page else []


def _local(path: str) -> str:
    return local_files.absolute(path.removeprefix("file://").removeprefix("local://"), Path.cwd())


def _split(entry: str) -> list[str]:
    """Sources of `a::b`, unless a file is called that."""
    if "::" not in entry or (is_local(entry) and "::" not in local_files.literal_prefix(_local(entry))[1]):
        return [entry]
    parts = entry.split("::")
    chained = [part for part in parts if part in available_protocols() or part.startswith(("zip://", "tar://"))]
    if chained or not all(parts):
        raise SourceError(
            f"{entry!r}: `::` stands between sources, each a path or URL of its own, and "
            + (f"{chained[0]!r} is none. fsspec's chained URLs are not taken: remote tars are kept in the home's cache "
               "by themselves (pool.remote.cache_gib), and archives within archives have to be unpacked"
               if chained else "one of these is empty")
        )  # fmt: skip
    return parts


def _expanded(part: str) -> list[str]:
    """A source's brace patterns, unless the name is there as it stands."""
    if "{" not in part and "}" not in part:
        return [part]
    fixed, pattern = local_files.literal_prefix(_local(part)) if is_local(part) else ("", split_query(part)[0])
    query = "" if is_local(part) else split_query(part)[1]
    if not pattern:
        return [part]
    _check_ranges(part, pattern)
    try:
        expanded = list(islice(braceexpand(pattern), MOST + 1))
    except ValueError as error:
        raise SourceError(
            f"{part!r}: nothing has this name, and as a pattern its braces do not match ({error}). Write {{a,b}} or "
            "{00000..00009}, or check the spelling"
        ) from error
    if len(expanded) > MOST:
        raise _too_many(part)
    return [(f"{fixed}/{one}" if is_local(part) else one) + query for one in expanded]


def _check_ranges(part: str, pattern: str) -> None:
    """Raise SourceError for a range that would fill the memory before its first name is known."""
    for first, last, step in RANGE.findall(pattern):
        if abs(int(last) - int(first)) // (abs(int(step or 1)) or 1) >= MOST:
            raise _too_many(part)


def _too_many(part: str) -> SourceError:
    return SourceError(
        f"{part!r}: its braces stand for more than {MOST:,} names. Write the range that is there, or a glob (`*.tar`)"
    )
