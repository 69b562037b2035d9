"""Sources: where a pool's tars are, from a directory, glob, brace pattern, fsspec URL, or a list of them.

A pool names its tars by their path below the one directory that holds them all, its base, so equal tars give equal
tables wherever they lie. The base, and how patiently to read from it, stand in `source.json` beside the tables;
whoever reads samples by the pool's directory finds them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from braceexpand import braceexpand
from pydantic import BaseModel, ConfigDict

from mgd_core.errors import UserError
from tasks.artefacts import publish_json, read_json, reading
from tasks.remote_cache import ShardCache
from tasks.remote_files import Reader
from tasks.remotes import RemoteOptions, address, file_info, list_files, patiently, store_of

MAGIC = "*?["


class SourceError(UserError, ValueError):
    """Nothing usable where a pool should be; the message says what was looked for and where."""


class PoolSource(BaseModel):
    """Where a pool's relative shards lie (a directory or URL), and how remote ones are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    remote: RemoteOptions = RemoteOptions()


def find_tars(source: str | Path | Sequence[str], options: RemoteOptions | None = None) -> list[str]:
    """Addresses of the tars of `source`, each once: local ones as absolute paths, others as URLs.

    A directory's tars are its `*.tar`, or those of its `shards` folder, which is what DataComp's downloader makes. They
    and a pattern's come sorted by name, a list's in its own order. Raises SourceError when one names nothing.
    """
    patterns = [str(source)] if isinstance(source, str | Path) else [str(entry) for entry in source]
    if not patterns:
        raise SourceError("the pool names no tar: give a directory, a glob, a brace pattern, a URL, or a list of them")
    found: dict[str, None] = {}
    for pattern in patterns:
        for one in braceexpand(pattern):
            urls = find_files(one, "*.tar", options)
            if not urls and not set(MAGIC) & set(one):
                urls = find_files(f"{one.rstrip('/')}/shards", "*.tar", options)
            if not urls:
                raise SourceError(
                    f"no tar at {one!r}. A pool is a directory with tiles.png and table.parquet, or tars: a "
                    "directory that holds *.tar (or shards/*.tar), a glob, a brace pattern like "
                    "shards/{00000..00009}.tar, or a URL"
                )
            found |= dict.fromkeys(urls)
    return list(found)


def find_files(pattern: str, names: str, options: RemoteOptions | None = None) -> list[str]:
    """Addresses of a glob's files, of a directory's whose name matches `names`, or of the one file, sorted."""
    fs, path = store_of(pattern)
    parent, _, last = path.rstrip("/").rpartition("/")
    if set(MAGIC) & set(parent):
        fs.invalidate_cache()
        return sorted(
            address(pattern, str(name)) for name in patiently(pattern, "list it", options, lambda: fs.glob(path))
        )
    if set(MAGIC) & set(last):
        folder, names = pattern.rstrip("/").rpartition("/")[0] or ".", last
    elif fnmatch(last, names):
        return _the_file(pattern, path, options)
    else:
        folder = pattern
    entries = list_files(folder, options)
    listed = [
        str(e["name"]) for e in entries if e["type"] == "file" and fnmatch(str(e["name"]).rpartition("/")[2], names)
    ]
    if listed or set(MAGIC) & set(last):
        return [address(folder, name) for name in listed]
    return _the_file(pattern, path, options)


def fingerprint(url: str, reader: Reader | None = None, fresh: bool = True) -> str:
    """Size, and the store's own stamp of a file's version; changes when the file is replaced. Costs one look-up, no
    reading; none where `fresh` is false and the store listed the directory before."""
    size, stamp = (reader or Reader()).version(url, fresh)
    if size < 0:
        raise SourceError(
            f"{url}: the store does not say how long the file is, so it allows no ranged reads; copy it first"
        )
    return f"{size} {stamp}".strip()


def common_base(urls: Sequence[str]) -> tuple[str, list[str]]:
    """The deepest directory that holds all of `urls`, and each one's path below it; no base ("", and the URLs as they
    are) where there is none on one store."""
    parts = [url.split("/") for url in urls]
    common = 0
    while all(len(one) > common + 1 and one[common] == parts[0][common] for one in parts):
        common += 1
    # s3: // bucket, or / directory: above that there is no one store, or only the root.
    if common < (3 if "://" in urls[0] else 2):
        return "", list(urls)
    return "/".join(parts[0][:common]), ["/".join(one[common:]) for one in parts]


def record_source(directory: Path, source: PoolSource) -> None:
    """Note in a pool's directory where its shards are."""
    try:
        known = (directory / "source.json").exists() and load_source(directory) == source
    except SourceError:
        known = False
    if not known:
        publish_json(directory / "source.json", source.model_dump(mode="json"))


def load_source(directory: str | Path) -> PoolSource:
    """Where the shards of the pool in `directory` are: in it, unless it says otherwise."""
    path = Path(directory) / "source.json"
    try:
        return _read_source(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return PoolSource(base=str(directory))
    except (ValueError, TypeError, RecursionError) as error:
        told = f"{path}: not a record of where a pool's shards are ({error}); remove it and run again"
        raise SourceError(told) from error


def reader_of(directory: str | Path) -> Reader:
    """The reader for the pool in `directory`; its cache is that of the home, `<home>/cache`."""
    if not str(directory):
        return Reader()
    path = Path(directory)
    options = load_source(path).remote
    if path.parent.name != "pools" or not options.cache_gib:
        return Reader(options)
    return Reader(options, ShardCache(path.parents[1] / "cache", int(options.cache_gib * 2**30)))


@lru_cache(maxsize=64)
def _read_source(path: Path, stamp: int) -> PoolSource:
    del stamp  # makes a changed file another entry
    with reading(path):
        return PoolSource.model_validate(read_json(path))


def _the_file(pattern: str, path: str, options: RemoteOptions | None) -> list[str]:
    try:
        info = file_info(pattern, options)
    except (FileNotFoundError, NotADirectoryError):
        return []
    # A web server's page about a directory is no file of it.
    is_page = str(info.get("mimetype", "")).startswith("text/html")
    return [address(pattern, path)] if info["type"] == "file" and not is_page else []
