"""Parquet files with pictures inside: Hugging Face's (`image: {bytes, path}`), img2dataset's, any with a binary column.

The plan has row numbers only, from the footer; a shard's rows are read, with their captions, when it is written: of
each row group that it needs, a few rows at a time. A row group that is damaged costs its own rows. Where a table has no
captions but a label whose names Hugging Face noted, these are classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteFault
from tasks.files.untrusted_parquet import LONGEST_FOOTER, Unreadable, parquet_columns
from tasks.pool.plain_values import plain_columns
from tasks.pool.validation import printable
from tasks.sharding.attempts import FAILED, Attempt, Given, ShardingError
from tasks.sharding.columns import CAPTIONS, chosen, image_column, no_column
from tasks.sharding.folders import in_sentence
from tasks.sharding.options import ShardOptions

AT_ONCE = 16
"""Rows that are in memory together."""
LABELS = ("label", "labels", "class", "fine_label")
LIMITS = {"thrift_string_size_limit": LONGEST_FOOTER, "thrift_container_size_limit": 1 << 20}
# What img2dataset says of a download that failed.
STATUS, ERROR, SUCCESS = "status", "error_message", "success"


def has_pictures(url: str, reader: Reader, options: ShardOptions) -> bool:
    """Whether a Parquet file has pictures inside."""
    return image_column(url, parquet_columns(url, reader), options.image_col) is not None


def planned(url: str, name: str, stamp: str, reader: Reader, options: ShardOptions) -> Iterator[Attempt]:
    """An attempt a row; raises Unreadable, or ShardingError where no column has captions."""
    columns = parquet_columns(url, reader, each_once=True)
    names = list(columns)
    image = image_column(url, columns, options.image_col)
    rest = [one for one in names if one != image]
    caption = chosen(url, rest, CAPTIONS, options.caption_col, "caption_col")
    uid = chosen(url, rest, ("uid",), options.uid_col, "uid_col")
    file, _ = reader.open(url)
    with file:
        metadata = pq.ParquetFile(file, **LIMITS).metadata
        classes = _classes(metadata.metadata or {})
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    label = None if caption else next((one for one in LABELS if one in names and one in classes), None)
    if caption is None and label is None:
        raise ShardingError(no_column(url, "captions", "caption_col", rest))
    guessed = f"pictures from {image!r}, captions from {caption or label!r}" + (f", uids from {uid!r}" if uid else "")
    say(f"{url}: {guessed} (image_col, caption_col and uid_col name others)")
    how = json.dumps([image, caption, uid, label, classes.get(label or "")])
    row = 0
    for rows, size in sizes:
        for _ in range(rows):
            yield Attempt("row", url, f"{name}#{row}", stamp, size // max(rows, 1), start=row, column=how)
            row += 1


def read_rows(attempts: Sequence[Attempt], reader: Reader, options: ShardOptions) -> Iterator[Given]:
    """The rows of one file, in their order, which is the file's."""
    url = attempts[0].url
    image, caption, uid, label, classes = json.loads(attempts[0].column)
    file, _ = reader.open(url)
    with file:
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20, **LIMITS)
            kinds = {field.name: field.type for field in parquet.schema_arrow}
            ends = _ends(parquet.metadata)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            _again(error)
            raise Unreadable(f"{url}: no sound Parquet file ({error}); it was one when it was listed") from error
        plain, _ = plain_columns({name: kind for name, kind in kinds.items() if name not in (image, uid)})
        for group, wanted in groupby(attempts, lambda one: next(i for i, end in enumerate(ends) if one.start < end)):
            rows = list(wanted)
            first = ends[group - 1] if group else 0
            done = 0
            try:
                for row in _group(parquet, group, [one.start - first for one in rows], [image, uid, *plain]):
                    yield _given(rows[done], row, (image, caption, uid, label, classes), plain, options)
                    done += 1
            except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
                _again(error)
                told = printable(f"corrupt_file: row group {group}: {' '.join(str(error).split())[:200]}")
                yield from (Given.failed(one, told) for one in rows[done:])


def _again(error: BaseException) -> None:
    """A store that did not answer is no damage."""
    if isinstance(error, RemoteFault):
        raise error


def _ends(metadata: Any) -> list[int]:
    """The row behind the last one of each row group."""
    ends, row = [], 0
    for i in range(metadata.num_row_groups):
        row += metadata.row_group(i).num_rows
        ends.append(row)
    return ends


def _group(
    parquet: pq.ParquetFile, group: int, wanted: list[int], columns: list[str | None]
) -> Iterator[dict[str, pa.Scalar]]:
    """The wanted rows (ascending, counted from the group's first) as scalars by column."""
    asked = [name for name in dict.fromkeys(columns) if name is not None]
    at, left = 0, wanted
    for batch in parquet.iter_batches(AT_ONCE, row_groups=[group], columns=asked, use_threads=False):
        batch.validate(full=True)
        while left and left[0] < at + batch.num_rows:
            i = left[0] - at
            yield {name: batch.column(j)[i] for j, name in enumerate(batch.schema.names)}
            left = left[1:]
        at += batch.num_rows
        if not left:
            return
    if left:
        raise ValueError(f"{len(left):,} rows fewer than the footer says")


def _given(
    attempt: Attempt, row: dict[str, pa.Scalar], how: tuple[Any, ...], plain: dict[str, Any], options: ShardOptions
) -> Given:
    image, caption, uid, label, classes = how
    record = {name: value(row[name]) for name, value in plain.items()}
    data = row[image].as_py()
    data = data.get("bytes") if isinstance(data, dict) else data
    text = record.pop(caption) if caption else None
    if isinstance(text, list):
        text = next((one for one in text if isinstance(one, str)), None)
    if label is not None:
        number = record.get(label)
        known = isinstance(number, int) and 0 <= number < len(classes)
        text = in_sentence(classes[number], attempt.name, options) if known else None
    named = row[uid].as_py() if uid else None
    named = str(named) if isinstance(named, int) else named
    if data is None:
        failed = record.get(STATUS) not in (None, SUCCESS)
        told = str(record.get(ERROR)) if failed else "missing_image: null"
        return Given(attempt, None, text, named, record, told, str(record[STATUS]) if failed else FAILED, failed)
    return Given(attempt, data, None if text is None else str(text), named, record)


def _classes(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Names of the labels of each column that Hugging Face's `datasets` noted, if it did."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(one) for one in kind["names"]]
            for name, kind in features.items()
            if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
