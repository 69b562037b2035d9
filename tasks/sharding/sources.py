"""Sources of pictures and captions: which of the usual forms one has, and its attempts in order.

| a source | becomes |
| --- | --- |
| a directory with tars (in it or in `shards/`), or a tar | its samples, cut anew |
| a directory of Parquet files (in it or in `data/`), or one, with pictures inside | its rows |
| CSV, TSV, JSON lines, Parquet with paths; a directory whose `metadata.*` is one; a list of web addresses | a listing |
| a directory of pictures (a hub's cache: its snapshot) | pictures with sidecars, or class folders |

img2dataset's three outputs are among them. Costs a listing; of tars their headers, of Parquet files their footers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.files.local_files import absolute
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.files.remotes import address, file_info, is_local, list_files, split_query
from tasks.files.source_patterns import MAGIC, SourceError, each_source, find
from tasks.files.sources import fingerprint
from tasks.pool.sheets import TABLE, TILES
from tasks.sharding import archives, rows
from tasks.sharding.attempts import Attempt, ShardingError
from tasks.sharding.folders import PICTURES, Folder
from tasks.sharding.listings import LISTINGS, listed
from tasks.sharding.options import ShardOptions

NAMES = ("*.tar", "*.parquet", *(f"*.{extension}" for extension in LISTINGS))
METADATA = tuple(f"metadata.{extension}" for extension in ("csv", "jsonl", "parquet"))
"""What Hugging Face's imagefolder calls a listing of the pictures beside it."""
HINT = (
    "A source is a directory of pictures (with captions in a.txt beside a.jpg, or in class folders), a listing (CSV, "
    "TSV, JSON lines, Parquet with paths and captions), Parquet files with pictures inside, or tars"
)


@dataclass(frozen=True)
class Source:
    """One source: its form (`tars`, `rows`, `listing`, `folder`) and its files, or the folder's base."""

    form: str
    urls: tuple[str, ...]

    def attempts(self, reader: Reader, options: ShardOptions) -> Iterator[Attempt]:
        """Its attempts, in order."""
        if self.form == "folder":
            folder = Folder(self.urls[0], options, reader.options)
            yield from folder.attempts()
            if told := folder.told():
                say(told)
            return
        for url in self.urls:
            if self.form == "listing":
                yield from listed(url, reader, options)
                continue
            name, stamp = split_query(url)[0].rpartition("/")[2], fingerprint(url, reader)
            yield from (
                archives.planned(url, name, stamp, reader)
                if self.form == "tars"
                else rows.planned(url, name, stamp, reader, options)
            )


def find_pictures(source: str | Path | Sequence[str], reader: Reader, options: ShardOptions) -> list[Source]:
    """The sources that a string or list of them names; raises SourceError or ShardingError where one is none."""
    found: list[Source] = []
    for one in each_source(source):
        found += _found(one if "://" in one else absolute(one, Path.cwd()), reader, options)
    if not found:
        raise SourceError(f"no source is named. {HINT}")
    return found


def needs_sharding(source: str | Path | Sequence[str], reader: Reader, options: ShardOptions) -> bool:
    """Whether a source names pictures that are in no tars yet: no sheet of tiles, and nothing that cannot be found."""
    if all(_holds_tars(one, reader) for one in each_source(source)):
        return False
    try:
        found = find_pictures(source, reader, options)
    except SourceError:
        return False
    return any(
        one.form in ("rows", "listing") or (one.form == "folder" and Folder(one.urls[0], options, reader.options).any())
        for one in found
    )


def _holds_tars(source: str, reader: Reader) -> bool:
    if is_local(source) and os.path.exists(os.path.join(source, TABLE)):
        return True  # a sheet
    urls = find(source, ("*.tar",), reader.options).urls or find(f"{source}/shards", ("*.tar",), reader.options).urls
    return bool(urls) and not any(_extension(url) in (*LISTINGS, *PICTURES) for url in urls)


def _found(source: str, reader: Reader, options: ShardOptions) -> list[Source]:
    if not MAGIC & set(split_query(source)[0]) or (is_local(source) and os.path.exists(source)):
        try:
            kind = file_info(source, reader.options)["type"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceError(f"nothing at {source!r}. {HINT}") from error
        if kind == "directory":
            return [_directory(source.rstrip("/"), reader, options)]
    files = find(source, NAMES, reader.options).urls
    if not files:
        raise SourceError(f"nothing at {source!r}. {HINT}")
    pictures = [url for url in files if _extension(url) in PICTURES]
    if pictures:
        raise ShardingError(
            f"{source}: names pictures one by one ({pictures[0]}, ...); name the directory that has them"
        )
    return [_file(url, reader, options) for url in files]


def _file(url: str, reader: Reader, options: ShardOptions) -> Source:
    extension = _extension(url)
    if extension == "parquet" and rows.has_pictures(url, reader, options):
        return Source("rows", (url,))
    if extension in LISTINGS:
        return Source("listing", (url,))
    if extension == "tar":
        return Source("tars", (url,))
    raise ShardingError(f"{url}: not a kind of file that is known here. {HINT}")


def _directory(base: str, reader: Reader, options: ShardOptions) -> Source:
    entries = {_name(entry): entry for entry in list_files(base, reader.options)}
    if {"blobs", "snapshots"} <= entries.keys():
        return _directory(_snapshot(base, reader), reader, options)
    if {TILES, TABLE} <= entries.keys():
        raise ShardingError(f"{base}: a sheet of tiles, which is taken as it is: name it as a catalog's pool.source")
    named = [name for name in METADATA if name in entries]
    if named:
        say(f"{base}: {named[0]} is taken for the listing of what lies beside it")
        return _file(f"{base}/{named[0]}", reader, options)
    tars = find(base, ("*.tar",), reader.options).urls
    if not tars and "shards" in entries:
        tars = find(f"{base}/shards", ("*.tar",), reader.options).urls
    if tars:
        return Source("tars", tars)
    parquet = _parquet(base, entries, reader)
    holding = [url for url in parquet if rows.has_pictures(url, reader, options)]
    if holding:
        if len(holding) < len(parquet):
            others = next(url for url in parquet if url not in holding)
            raise ShardingError(f"{base}: {others} has no pictures inside, {holding[0]} has; name those that are meant")
        return Source("rows", tuple(holding))
    pictures = any(_extension(name) in PICTURES for name in entries)
    folders = any(entry["type"] == "directory" for entry in entries.values())
    lists = [name for name in sorted(entries) if _extension(name) in LISTINGS[:-1] and _extension(name) != "txt"]
    if not pictures and not folders and (lists or parquet):
        return Source("listing", tuple(f"{base}/{name}" for name in lists) or parquet)
    return Source("folder", (base,))


def _parquet(base: str, entries: dict[str, dict[str, Any]], reader: Reader) -> tuple[str, ...]:
    here = tuple(address(base, str(e["name"])) for n, e in sorted(entries.items()) if _extension(n) == "parquet")
    if here or entries.get("data", {}).get("type") != "directory":
        return here
    return tuple(
        url for url in find(f"{base}/data", ("*.parquet",), reader.options).urls if _extension(url) == "parquet"
    )


def _snapshot(base: str, reader: Reader) -> str:
    """The one snapshot of a hub's cache that is meant: what `refs/main` names, or the only one."""
    there = [_name(entry) for entry in list_files(f"{base}/snapshots", reader.options)]
    try:
        main = reader.read(f"{base}/refs/main").decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        main = ""
    chosen = main if main in there else there[0] if len(there) == 1 else ""
    if not chosen:
        raise ShardingError(
            f"{base}: a hub's cache with {len(there)} snapshots; name one of them, {base}/snapshots/..."
        )
    say(f"{base}: a hub's cache; its snapshot {chosen} is read")
    return f"{base}/snapshots/{chosen}"


def _name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _extension(name: str) -> str:
    return split_query(name)[0].rpartition("/")[2].rpartition(".")[2].lower()
