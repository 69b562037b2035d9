"""Sources: where a pool's tars are, from a directory, glob, brace pattern, fsspec URL, or a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from braceexpand import braceexpand
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

# What a store calls the thing that changes when a file is replaced, best first. No two stores agree.
STAMPS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "created")


class SourceError(ValueError):
    """Nothing usable where a pool should be; the message says what was looked for and where."""


def find_tars(source: str | Path | Sequence[str]) -> list[str]:
    """Addresses of the tars of `source`, each once: local ones as absolute paths, others as URLs.

    A pattern's or directory's tars come sorted by name, a list's in its own order. Raises SourceError when
    one names nothing.
    """
    patterns = [str(source)] if isinstance(source, str | Path) else [str(entry) for entry in source]
    if not patterns:
        raise SourceError(
            "the pool names no tar: give a directory, a glob, a brace pattern, a URL, or a list of them"
        )
    return list(
        dict.fromkeys(url for pattern in patterns for one in braceexpand(pattern) for url in _match(one))
    )


def fingerprint(url: str) -> str:
    """Size, and the store's own stamp of a file's version; changes when the tar is replaced. Costs one
    look-up, no reading."""
    fs, path = url_to_fs(url)
    info = fs.info(path)
    if info.get("size") is None:
        raise SourceError(
            f"{url}: the store does not say how long the file is, so it allows no ranged reads; copy it first"
        )
    stamp = next((f"{key}={info[key]}" for key in STAMPS if info.get(key) is not None), "")
    return f"{info['size']} {stamp}".strip()


def _match(pattern: str) -> list[str]:
    fs, path = url_to_fs(pattern)
    if any(sign in path for sign in "*?["):
        found = sorted(fs.glob(path))
    elif fs.isdir(path):
        found = sorted(fs.glob(path.rstrip("/") + "/*.tar"))
    else:
        found = [path] if fs.exists(path) else []
    if not found:
        raise SourceError(
            f"no tar at {pattern!r}. A pool is a directory with tiles.png and table.parquet, or tars: "
            "a directory that holds *.tar, a glob, a brace pattern like shards/{00000..00009}.tar, or a URL"
        )
    if isinstance(fs, LocalFileSystem):
        return [str(name) for name in found]
    return [fs.unstrip_protocol(name) for name in found]
