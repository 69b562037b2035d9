"""Listings: tables of pictures' places and captions, as CSV, TSV, JSON lines or Parquet, read row by row.

Places are paths below the listing's own folder, absolute ones, or addresses of a store; addresses of the web are not
fetched here: that is img2dataset's work, and the message gives its command (`downloads`). Columns are those that the
options name, or guessed by their names, and told; all others go into the sample's json.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.files.file_forms import HEAD, form_of, not_lines
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.files.remotes import is_local
from tasks.files.untrusted_parquet import parquet_batches, parquet_columns
from tasks.pool.foreign_json import json_object
from tasks.pool.plain_values import plain_columns, plain_rows
from tasks.pool.validation import printable
from tasks.sharding.attempts import Attempt, ShardingError
from tasks.sharding.columns import CAPTIONS, PLACES, chosen, no_column
from tasks.sharding.options import ShardOptions

LISTINGS = ("csv", "tsv", "txt", "jsonl", "ndjson", "parquet")
WEB = ("http://", "https://")
LONGEST = 1 << 24
"""Characters of a field."""
Row = tuple[dict[str, Any], str]
"""A row's values by column, and what is wrong with it."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are used."""

    place: str
    caption: str | None
    uid: str | None


def listed(url: str, reader: Reader, options: ShardOptions) -> Iterator[Attempt]:
    """The attempts of a listing; raises ShardingError or Unreadable where it is none."""
    base, _, file = url.rpartition("/")
    columns = None
    for number, (row, error) in enumerate(_rows(url, reader)):
        name = f"{file}#{number}"
        if columns is None and not error:
            columns = _columns(url, list(row), options)
        if columns is None or error:
            yield Attempt("picture", url, name, error=error)
            continue
        yield _attempt(base, url, name, row, columns, options)


def downloads(url: str, columns: Columns, options: ShardOptions) -> ShardingError:
    """What is told of a list of web addresses: the command that fetches them."""
    name = url.rpartition("/")[2]
    extension = name.rpartition(".")[2].lower()
    out = f"{name.rpartition('.')[0] or name}-pictures"
    form = {"ndjson": "jsonl", "tsv": "tsv.gz" if name.endswith(".gz") else "tsv"}.get(extension, extension)
    said = {"url_list": url, "input_format": form, "output_format": "webdataset", "output_folder": out}
    if extension != "txt":
        said |= {"url_col": columns.place} | ({"caption_col": columns.caption} if columns.caption else {})
        said |= {"save_additional_columns": json.dumps([columns.uid])} if columns.uid else {}
    if options.image_size is None:
        said |= {"disable_all_reencoding": "True"}
    else:
        said |= {"image_size": str(options.image_size), "resize_mode": options.resize_mode}
        said |= {"resize_only_if_bigger": str(options.resize_only_if_bigger)}
        said |= {"encode_format": options.encode_format} if options.encode_format else {}
    command = " ".join(["img2dataset", *(f"--{key}={shlex.quote(value)}" for key, value in said.items())])
    return ShardingError(
        f"{url}: has addresses of the web, which img2dataset fetches (pip install img2dataset):\n\n  {command}\n\n"
        f"Then give {out} as the source: what it leaves is read as it is"
    )


def _columns(url: str, names: list[str], options: ShardOptions) -> Columns:
    place = chosen(url, names, PLACES, options.url_col, "url_col")
    if place is None:
        raise ShardingError(no_column(url, "pictures' places", "url_col", names))
    rest = [name for name in names if name != place]
    caption = chosen(url, rest, CAPTIONS, options.caption_col, "caption_col")
    uid = chosen(url, rest, ("uid",), options.uid_col, "uid_col")
    found = Columns(place, caption, uid)
    named = {"pictures": options.url_col, "captions": options.caption_col, "uids": options.uid_col}
    taken = zip(named, (place, caption, uid), strict=True)
    guessed = [f"{what} from {name!r}" for what, name in taken if named[what] is None and name is not None]
    if guessed:
        say(f"{url}: {', '.join(guessed)} (guessed; url_col, caption_col and uid_col name others)")
    return found


def _attempt(base: str, url: str, name: str, row: dict[str, Any], columns: Columns, options: ShardOptions) -> Attempt:
    place = row.get(columns.place)
    if isinstance(place, str) and place.startswith(WEB):
        raise downloads(url, columns, options)
    if columns.caption is None:
        raise ShardingError(no_column(url, "captions", "caption_col", list(row)))
    caption, uid = row[columns.caption], row[columns.uid] if columns.uid else None
    if isinstance(caption, list):  # several captions of a picture
        caption = next((one for one in caption if isinstance(one, str)), None)
    used = {columns.place, columns.caption, columns.uid}
    others = {printable(key): value for key, value in row.items() if key not in used}
    said: dict[str, Any] = {
        "caption": None if caption is None else str(caption),
        "uid": None if uid is None or uid == "" else printable(str(uid)),
        "columns": printable(json.dumps(others, ensure_ascii=False, default=str)) if others else "",
    }
    if not isinstance(place, str) or not place.strip() or "\0" in place:
        return Attempt("picture", url, name, error=f"missing_image: no place of one in {columns.place!r}", **said)
    where = place if "://" in place or os.path.isabs(place) else f"{base}/{place}"
    if not is_local(where):
        return Attempt("picture", where, name, **said)
    try:
        found = os.stat(where.removeprefix("file://"))
    except (OSError, ValueError) as error:
        told = f"missing_image: {printable(place)}: {getattr(error, 'strerror', None) or error}"
        return Attempt("picture", where, name, error=told, **said)
    return Attempt("picture", where, name, f"{found.st_size} {found.st_mtime_ns}", found.st_size, **said)


def _rows(url: str, reader: Reader) -> Iterator[Row]:
    extension = url.rpartition(".")[2].lower()
    if extension == "parquet":
        return _parquet(url, reader)
    file, _ = reader.open(url)
    head = file.read(HEAD)
    file.seek(0)
    form = form_of(head)
    if form not in ("", "text"):
        file.close()
        raise ShardingError(f"{url}: a listing is text in UTF-8, and this is {form}")
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    if extension in ("jsonl", "ndjson"):
        told = not_lines(head)
        if told:
            text.close()
            raise ShardingError(f"{url}: {told}")
        return _lines(text)
    if extension == "txt":
        return (({"url": line.strip()}, "") for line in text if line.strip())
    return _separated(text, url, head.split(b"\n")[0])


def _parquet(url: str, reader: Reader) -> Iterator[Row]:
    columns, left_out = plain_columns(parquet_columns(url, reader))
    if left_out:
        say(f"{url}: left out, since JSON has no such values: {', '.join(left_out)}")
    for batch in parquet_batches(url, reader, list(columns)):
        yield from ((row, "") for row in plain_rows(batch, columns))


def _lines(text: io.TextIOWrapper) -> Iterator[Row]:
    with text:
        for line in text:
            if not line.strip():
                continue
            try:
                yield json_object(line.encode("utf-8", "surrogateescape")), ""
            except ValueError as error:
                yield {}, f"bad_json: {printable(str(error))}"


def _separated(text: io.TextIOWrapper, url: str, first: bytes) -> Iterator[Row]:
    """Rows of a CSV, whose first line names its columns; open_clip's are called .csv and have tabs."""
    separator = next((sign for sign in "\t,;" if sign.encode() in first), "\t" if url.endswith(".tsv") else ",")
    with text:
        csv.field_size_limit(LONGEST)
        rows = csv.reader(text, delimiter=separator)
        names: list[str] = []
        while True:
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield {}, f"bad_row: line {rows.line_num:,}: {error}"
                continue
            if not names:
                names = [printable(one.strip()) for one in values]
                twice = sorted({one for one in names if names.count(one) > 1})
                if twice:
                    raise ShardingError(f"{url}: more than one column is called {', '.join(map(repr, twice))}")
            elif values and len(values) != len(names):
                yield {}, f"bad_row: line {rows.line_num:,} has {len(values)} fields, the first line {len(names)}"
            elif values:
                yield dict(zip(names, values, strict=True)), ""
