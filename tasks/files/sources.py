"""Sources: where a pool's tars lie, and how they are read; which they are, `source_patterns` finds.

A pool names its tars by their path below the one directory that holds them all, its base, so equal tars give equal
tables wherever they lie. The base, and how patiently to read from it, stand in `source.json` beside the tables;
whoever reads samples by the pool's directory finds them there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tasks.files.artefacts import publish_json, read_json, reading
from tasks.files.option_types import Strict
from tasks.files.remote_cache import ShardCache
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteOptions, split_query
from tasks.files.source_patterns import SourceError


class PoolSource(Strict):
    """Where a pool's relative shards lie (a directory or URL), and how remote ones are read. A base that begins with
    `..` is from the pool's directory."""

    base: str
    remote: RemoteOptions = RemoteOptions()


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
    parts = [split_query(url)[0].split("/") for url in urls]
    common = 0
    while all(len(one) > common + 1 and one[common] == parts[0][common] for one in parts):
        common += 1
    # s3: // bucket, or / directory: above that there is no one store, or only the root.
    if common < (3 if "://" in urls[0] else 2):
        return "", list(urls)
    queries = [split_query(url)[1] for url in urls]
    names = ["/".join(one[common:]) + query for one, query in zip(parts, queries, strict=True)]
    assert len(set(names)) == len(set(urls)), "two files would share a name"
    return "/".join(parts[0][:common]), names


def record_source(directory: Path, source: PoolSource) -> None:
    """Note in a pool's directory where its shards are; those in the pool's own home are found again when that moves."""
    if source.base.startswith(f"{os.path.abspath(directory.parents[1])}/"):
        source = source.model_copy(update={"base": os.path.relpath(source.base, directory)})
    try:
        known = (directory / "source.json").exists() and _noted(directory) == source
    except (ValueError, TypeError, RecursionError):
        known = False
    if not known:
        publish_json(directory / "source.json", source.model_dump(mode="json"))


def load_source(directory: str | Path) -> PoolSource:
    """Where the shards of the pool in `directory` are: in it, unless it says otherwise."""
    try:
        found = _noted(Path(directory))
        if found.base.startswith(".."):
            return found.model_copy(update={"base": os.path.normpath(os.path.join(directory, found.base))})
        return found
    except FileNotFoundError:
        return PoolSource(base=str(directory))
    except (ValueError, TypeError, RecursionError) as error:
        path = Path(directory) / "source.json"
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


def _noted(directory: Path) -> PoolSource:
    path = directory / "source.json"
    return _read_source(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read_source(path: Path, stamp: int) -> PoolSource:
    del stamp  # makes a changed file another entry
    with reading(path):
        return PoolSource.model_validate(read_json(path))
