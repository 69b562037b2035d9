"""Local files by the names that people give them: links followed under their own names, patterns part by part.

A name that is there stands for itself, whatever letters it has: a directory called `pool [v2]` is no pattern. Links
keep their names (a hub's cache has `0.tar -> ../blobs/abc`); what a link points to gives its kind, size and time. One
that points nowhere, or in a circle, is listed as a file that cannot be read, for the caller to tell of. A directory
link that leads back to a directory on the way to it is not followed again, so `**` ends.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mgd_core.errors import UserError

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How the address of a place elsewhere begins; pathlib leaves one slash of the two."""
MAGIC = frozenset("*?[")
DANGLING = "dangling"
"""Type of an entry that is a link to nothing."""


class NotLocal(UserError, ValueError):
    """An address of another place, where a path of this machine is taken."""


def local_path(text: str | Path) -> Path:
    """A path of this machine; raises NotLocal for a URL, of which pathlib would make a folder called `s3:`."""
    if URL.match(str(text)):
        raise NotLocal(
            f"{str(text)!r} is a URL, and this is read and written on this machine only: give a local path, or mount "
            "the store and give the path there (a folder of that very name is ./"
            + str(text).partition("/")[0]
            + "/...)"
        )
    return Path(text)


def followed(entry: dict[str, Any]) -> dict[str, Any]:
    """A listing's entry of a local file, with what its link points to in place of the link's own."""
    if not entry.get("islink"):
        return entry
    try:
        found = os.stat(entry["name"])
    except OSError:
        return {**entry, "type": DANGLING, "size": 0}
    kind = "directory" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
    return {**entry, "type": kind, "size": found.st_size, "mtime": found.st_mtime, "created": found.st_ctime}


def absolute(source: str, base: Path) -> str:
    """A path made absolute, relative ones being below ``base``; links keep their names. URLs stay, and so does each
    part of `a::b`."""
    fixed, rest = literal_prefix(str(base / source))
    if not rest:
        return _tidy(fixed or "/")
    if "::" in rest:
        return "::".join(absolute(part, base) if part else part for part in source.split("::"))
    return source if "://" in source else _tidy(str(base / os.path.expanduser(source)))


def _tidy(path: str) -> str:
    """The path without `.`, `..` and doubled slashes, unless a link on the way gives `..` another meaning."""
    tidy = os.path.normpath(path)
    return tidy if os.path.realpath(tidy) == os.path.realpath(path) else path


def literal_prefix(path: str) -> tuple[str, str]:
    """The longest beginning of a path that is there as it stands, and the rest, which may be a pattern."""
    parts = path.split("/")
    n = len(parts)
    while n and not os.path.lexists("/".join(parts[:n]) or "/"):
        n -= 1
    return "/".join(parts[:n]), "/".join(parts[n:])


def glob(pattern: str) -> list[str]:
    """Files and dangling links that an absolute pattern names (`*`, `?`, `[…]`; `**`: any directories), sorted."""
    return sorted({path for path in _matching("/", pattern.strip("/").split("/")) if not os.path.isdir(path)})


def _matching(folder: str, parts: list[str]) -> Iterator[str]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        for below in _directories(folder, ()):
            yield from _matching(below, rest or ["*"])
        return
    path = os.path.join(folder, part)
    names = [part] if os.path.lexists(path) or not MAGIC & set(part) else _names(folder, part)
    for name in names:
        path = os.path.join(folder, name)
        if not rest and os.path.lexists(path):
            yield path
        elif rest and os.path.isdir(path):
            yield from _matching(path, rest)


def _names(folder: str, pattern: str) -> list[str]:
    """Names in a directory that fit; hidden ones only if the pattern begins with a dot."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [name for name in names if fnmatchcase(name, pattern) and (name[0] != "." or pattern[0] == ".")]


def _directories(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """A directory and all below it, links followed, except to one that is on the way (real paths `above`)."""
    real = os.path.realpath(folder)
    if real in above:
        return
    yield folder
    for name in sorted(_names(folder, "*")):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            yield from _directories(path, (*above, real))
