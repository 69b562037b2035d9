"""Files of text samples: JSON lines (plain or gzip), Parquet, or WebDataset tars of json members, record by record.

Each record comes with its key (line, row or member name). What cannot be read comes as a fault with a reason of
`verdicts.REASONS`, in its place; after damage to the file itself, whose faults have no key, nothing more comes.
Cost: one sequential read; memory is a line, or a batch of Parquet rows.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.artefacts import canonical_json
from tasks.foreign_parquet import Unreadable, parquet_batches, parquet_columns
from tasks.remote_files import Reader
from tasks.remotes import RemoteOptions
from tasks.source_patterns import Files, find_sources
from tasks.tars import TarDamage, walk

NAMES = ("*.jsonl", "*.jsonl.gz", "*.parquet", "*.tar")


class Fault(NamedTuple):
    """Why a record, or all that follows in a file, cannot be read."""

    reason: str
    detail: str


class Found(NamedTuple):
    """A record of a file, or why there is none; without a key it is the file's."""

    key: str
    record: dict[str, Any] | Fault


def find_texts(source: str | Path | Sequence[str], options: RemoteOptions | None = None) -> Files:
    """The files of `source` (a file, directory, glob, brace pattern, URL, or several of them), each once.

    Raises SourceError when one names nothing.
    """
    hint = (
        f"A pool of texts is {', '.join(NAMES)}: a file, a directory of them, a glob, a brace pattern, or a URL. Other "
        "formats have to be turned into one of these first"
    )
    return find_sources(source, NAMES, options, "text", hint)


def records(url: str, reader: Reader) -> Iterator[Found]:
    """Every record of a file, in its order; raises OSError when the file cannot be had."""
    if url.endswith(".parquet"):
        return _of_parquet(url, reader)
    return _of_tar(url, reader) if url.endswith(".tar") else _of_lines(url, reader)


def _of_lines(url: str, reader: Reader) -> Iterator[Found]:
    file, _ = reader.open(url)
    with file:
        lines = gzip.GzipFile(fileobj=file) if url.endswith(".gz") else file
        number = 0
        try:
            for line in lines:
                number += 1
                if line.strip():
                    yield Found(str(number), _parsed(line))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Found("", Fault("corrupt_file", f"after line {number:,}: {error}"))


def _of_parquet(url: str, reader: Reader) -> Iterator[Found]:
    row = 0
    try:
        for batch in parquet_batches(url, reader, list(parquet_columns(url, reader))):
            for record in batch.to_pylist():
                yield Found(str(row), _plain(record))
                row += 1
    except Unreadable as error:
        yield Found("", Fault("corrupt_file", f"after row {row:,}: {error}"))


def _of_tar(url: str, reader: Reader) -> Iterator[Found]:
    file, length = reader.open(url)
    with file:
        try:
            for member in walk(file, length):
                key, _, extension = member.name.rpartition(".")
                if extension.lower() == "json":
                    torn = Fault("torn_member", member.name)
                    yield Found(key, torn if member.torn else _parsed(member.data))
        except TarDamage as damage:
            yield Found("", Fault(damage.reason, damage.detail))


def _parsed(data: bytes) -> dict[str, Any] | Fault:
    """The object of a JSON text; NaN and infinities, which JSON does not have, become null."""
    try:
        record = json.loads(data, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        return Fault("bad_json", str(error))
    return _plain(record)


def _plain(record: Any) -> dict[str, Any] | Fault:
    """A record that JSON can hold."""
    if not isinstance(record, dict):
        return Fault("bad_json", f"a JSON {type(record).__name__}, not an object")
    try:
        canonical_json(record)
    except (TypeError, ValueError, RecursionError) as error:
        return Fault("bad_json", str(error))
    return record
