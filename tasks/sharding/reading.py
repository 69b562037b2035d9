"""Reading attempts: the picture, the caption and all else of each, in the order of the plan, whatever they lie in.

What is in a store is asked for ahead, several files at a time; a file of this machine that is no longer what was listed
stops the reading, since the plan is of what was there. A picture that is not there is a failure of its own.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

from tasks.files.file_forms import BOM
from tasks.files.remote_files import Reader
from tasks.files.remotes import is_local
from tasks.pool.validation import Rejected, record_of
from tasks.sharding.archives import captioned, read_members
from tasks.sharding.attempts import Attempt, Given, ShardingError
from tasks.sharding.options import ShardOptions
from tasks.sharding.rows import read_rows

AHEAD = 16
"""Pictures of a store that are asked for together."""


def read(attempts: Sequence[Attempt], reader: Reader, options: ShardOptions) -> Iterator[Given]:
    """The attempts, read, in their order."""
    for (kind, _), found in groupby(attempts, lambda one: (one.kind, one.url if one.kind != "picture" else "")):
        rows = list(found)
        if kind == "picture":
            yield from _pictures(rows, reader)
        elif kind == "row":
            yield from read_rows(rows, reader, options)
        else:
            yield from read_members(rows, reader)


def _pictures(attempts: Sequence[Attempt], reader: Reader) -> Iterator[Given]:
    if all(is_local(one.url) for one in attempts):
        yield from (_picture(one, reader) for one in attempts)
        return
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="pictures") as pool:
        waiting: deque[Future[Given]] = deque()
        for one in attempts:
            waiting.append(pool.submit(_picture, one, reader))
            if len(waiting) >= 2 * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _picture(attempt: Attempt, reader: Reader) -> Given:
    if attempt.error:
        return Given.failed(attempt)
    try:
        image = _bytes(attempt.url, attempt.stamp.partition("; ")[0], reader)
        text = _trimmed(reader.read(attempt.text)) if attempt.text else attempt.caption
        record = record_of(reader.read(attempt.json)) if attempt.json else {}
    except Rejected as rejected:
        return Given.failed(attempt, f"{rejected.reason}: {rejected.detail}")
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        return Given.failed(attempt, f"missing_image: {error.strerror or type(error).__name__}")
    uid = attempt.uid if attempt.uid is not None else record.pop("uid", None)
    record |= json.loads(attempt.columns) if attempt.columns else {}
    caption = text if isinstance(text, str) else captioned(text, record)
    return Given(attempt, image, caption, uid, record)


def _trimmed(text: bytes) -> bytes:
    """A caption's file without what editors put around it: a byte order mark, an end of line."""
    return text.removeprefix(BOM).strip()


def _bytes(url: str, stamp: str, reader: Reader) -> bytes:
    """A picture's file, which has to be what was listed."""
    if not is_local(url):
        return reader.read(url)
    with open(url.removeprefix("file://"), "rb") as file:
        found = os.fstat(file.fileno())
        if stamp and stamp != f"{found.st_size} {found.st_mtime_ns}":
            raise ShardingError(
                f"{url}: changed since it was listed; give the same command again when nobody writes there"
            )
        return file.read()
