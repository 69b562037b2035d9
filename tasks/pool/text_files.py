"""Files of text samples: JSON lines (plain or compressed), Parquet, or WebDataset tars of json members, record by
record.

Each record comes with its key (line, row or member name). What cannot be read comes as a fault with a reason of
`validation.REASONS`, in its place; after damage to the file itself, whose faults have no key, nothing more comes. A
file that is something else altogether is such damage, and its fault says what it is.
Cost: one sequential read; memory is a line, or a batch of Parquet rows.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from tasks.files.file_forms import BOM, HEAD, form_of, not_lines
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteFault, RemoteOptions
from tasks.files.source_patterns import Files, find_sources
from tasks.files.tars import TarDamage, walk
from tasks.files.untrusted_parquet import Unreadable, parquet_batches, parquet_columns
from tasks.pool.foreign_json import json_object
from tasks.pool.plain_values import plain_columns, plain_rows

NAMES = ("*.jsonl", "*.jsonl.gz", "*.parquet", "*.tar")
SPACE = b" \t\r\n"
UNPACKED: dict[str, Callable[[BinaryIO], Any]] = {
    "compressed with gzip": lambda file: gzip.GzipFile(fileobj=file),
    "compressed with bzip2": bz2.BZ2File,
    "compressed with xz": lzma.LZMAFile,
    "compressed with zstd": lambda file: io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")),
}
"""How to read through a form of compression."""


class Fault(NamedTuple):
    """Why a record, or all that follows in a file, cannot be read."""

    reason: str
    detail: str


class Found(NamedTuple):
    """A record of a file, or why there is none; without a key it is the file's."""

    key: str
    record: dict[str, Any] | Fault


class Raw(NamedTuple):
    """A record as it lies in a file: the bytes of its JSON, a row of plain values, or why there is none."""

    key: str
    data: bytes | dict[str, Any] | Fault


def find_texts(source: str | Path | Sequence[str], options: RemoteOptions | None = None) -> Files:
    """The files of `source` (a file, directory, glob, brace pattern, URL, or several of them), each once.

    Raises SourceError when one names nothing.
    """
    hint = (
        f"A pool of texts is {', '.join(NAMES)}: a file, a directory of them, a glob, a brace pattern, or a URL. Other "
        "formats have to be turned into one of these first"
    )
    return find_sources(source, NAMES, options, "text", hint)


def records(url: str, reader: Reader, tell: Callable[[str], object] = say) -> Iterator[Found]:
    """Every record of a file, in its order; raises OSError when the file cannot be had. What is left out of all of them
    is told."""
    for key, data in raw_records(url, reader, tell):
        yield Found(key, parsed(data) if isinstance(data, bytes) else data)


def raw_records(url: str, reader: Reader, tell: Callable[[str], object] = say) -> Iterator[Raw]:
    """The same as they lie there, not parsed."""
    file, length = reader.open(url)
    with file:
        head = file.read(HEAD)
        file.seek(0)
        name, form = url.lower(), form_of(head)
        if name.endswith(".parquet") or form == "Parquet":
            yield from _of_parquet(url, reader, form, tell)
        elif name.endswith(".tar") or form == "a tar":
            yield from _of_tar(file, length, form)
        elif form in UNPACKED:
            yield from _unpacked(UNPACKED[form](file), form)
        else:
            yield from _of_lines(file, head)


def _unpacked(file: Any, form: str) -> Iterator[Raw]:
    """The lines of a compressed file; what its decoder complains of is damage."""
    number = 0
    try:
        for raw in _of_lines(file, file.peek(HEAD)):
            number = int(raw.key or number)
            yield raw
    except RemoteFault:
        raise
    except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        yield Raw("", Fault("corrupt_file", f"{form}; after line {number:,}: {error}"))


def _of_lines(file: BinaryIO, head: bytes) -> Iterator[Raw]:
    wrong = not_lines(head)
    if wrong:
        yield Raw("", Fault("wrong_form", wrong))
        return
    for number, line in enumerate(file, 1):
        data = (line.removeprefix(BOM) if number == 1 else line).strip(SPACE)
        if data:
            yield Raw(str(number), data)


def _of_parquet(url: str, reader: Reader, form: str, tell: Callable[[str], object]) -> Iterator[Raw]:
    row = 0
    try:
        columns, left_out = plain_columns(parquet_columns(url, reader, each_once=True))
        if left_out:
            tell(f"left out, since bytes are no text: {', '.join(left_out)}")
        for batch in parquet_batches(url, reader, list(columns)):
            for record in plain_rows(batch, columns):
                yield Raw(str(row), record)
                row += 1
    except Unreadable as error:
        if form not in ("Parquet", ""):
            yield Raw("", Fault("wrong_form", f"not Parquet but {form}"))
        else:
            yield Raw("", Fault("corrupt_file", f"after row {row:,}: {error}"))


def _of_tar(file: BinaryIO, length: int, form: str) -> Iterator[Raw]:
    try:
        for member in walk(file, length):
            key, _, extension = member.name.rpartition(".")
            if extension.lower() == "json":
                yield Raw(key, Fault("torn_member", member.name) if member.torn else member.data)
    except TarDamage as damage:
        told = f" (it is {form})" if form not in ("a tar", "") else ""
        yield Raw("", Fault(damage.reason, damage.detail + told))


def parsed(data: bytes) -> dict[str, Any] | Fault:
    """The object of a JSON text."""
    try:
        return json_object(data)
    except ValueError as error:
        return Fault("bad_json", str(error))
