"""Text lines: the records of chosen samples, got back from the files that a pool of texts was made of.

A record that was JSON comes back byte for byte (a json member of a tar with its line breaks as spaces, so that it is
one line); one that was a row of Parquet with equal values, in the order of its columns, nulls kept. The samples table
says file and key of each; the uid is made again from what lies there, so a file that has changed since is told.

Cost: one pass over each file that holds a chosen sample, and their bytes once more on disk, in a file without a name.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mgd_core.errors import UserError
from mgd_core.whole_files import FULL
from tasks.files.remote_files import Reader
from tasks.files.sources import reader_of
from tasks.homes.working_copies import at_hand
from tasks.pool.record import PoolRecord
from tasks.pool.samples import resolve
from tasks.pool.text_files import Fault, parsed, raw_records
from tasks.pool.text_records import TextColumns, identity
from tasks.pool.validation import printable
from tasks.subset.files import SubsetError
from tasks.tables.uids import Bytes16, uid_bytes, uid_hex

REMEDY = "restore it, or build the pool again (`mgd curate`) and take the subset of that run"


def found_lines(pool: PoolRecord, uids: Bytes16, columns: TextColumns, scratch: Path) -> Iterator[bytes]:
    """A line of JSON for each of `uids` (sorted), which are samples of the pool, in their order.

    Raises SubsetError where a file is gone, or does not hold them any more.
    """
    places = np.full((len(uids), 2), -1, np.int64)
    with tempfile.TemporaryFile(dir=scratch) as kept:
        for shard, wanted in _wanted(pool, uids).items():
            url = resolve(shard, pool.directory)
            try:
                _keep(url, reader_of(pool.directory), wanted, columns, kept, places)
            except OSError as error:
                if isinstance(error, UserError) or error.errno in FULL:
                    raise
                raise SubsetError(f"{url}: cannot be read ({error.strerror or error}); {REMEDY}") from error
            missing = [uid for members in wanted.values() for uid, at in members.items() if places[at, 0] < 0]
            if missing:
                raise SubsetError(
                    f"{url}: {len(missing):,} of the {sum(map(len, wanted.values())):,} samples wanted of it are not "
                    f"there any more, first {missing[0]}. The file has changed since the pool was made: {REMEDY}"
                )
        for start, size in places.tolist():
            kept.seek(start)
            yield kept.read(size)


def _wanted(pool: PoolRecord, uids: Bytes16) -> dict[str, dict[str, dict[str, int]]]:
    """By file, by key: the uids that are wanted of it, and their places among `uids`."""
    at_hand(pool.directory)
    samples = pq.read_table(pool.samples_path, columns=["uid", "shard", "key"])
    own = uid_bytes(samples["uid"])
    at = np.minimum(np.searchsorted(own, uids), len(own) - 1)
    foreign = uids[own[at] != uids]
    if len(foreign):
        raise SubsetError(f"{len(foreign):,} samples are not in pool {pool.pool_id}, first {uid_hex(foreign[:1])[0]}")
    rows = samples.select(["shard", "key"]).take(pa.array(at)).to_pydict()
    found: dict[str, dict[str, dict[str, int]]] = {}
    for place, (uid, shard, key) in enumerate(zip(uid_hex(uids), rows["shard"], rows["key"], strict=True)):
        found.setdefault(shard, {}).setdefault(key, {})[uid] = place
    return found


def _keep(
    url: str,
    reader: Reader,
    wanted: Mapping[str, Mapping[str, int]],
    columns: TextColumns,
    kept: BinaryIO,
    places: npt.NDArray[np.int64],
) -> None:
    """Write the wanted records of a file as lines into `kept`, and note where each lies and how long it is."""
    for key, data in raw_records(url, reader, lambda _: None):
        members = wanted.get(printable(key), {})
        record = parsed(data) if members and isinstance(data, bytes) else data
        if not members or isinstance(record, Fault | bytes):
            continue
        try:
            place = members.get(identity(record, columns)[0], -1)
        except ValueError:
            continue
        if place >= 0 and places[place, 0] < 0:
            line = _line(data)
            places[place] = kept.tell(), kept.write(line)


def _line(data: bytes | Mapping[str, Any] | Fault) -> bytes:
    if isinstance(data, bytes):
        # Line breaks of a JSON text lie between its values: inside of a string they are written as \\n.
        return data.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n").translate(SPACES) + b"\n"
    return json.dumps(data, ensure_ascii=False).encode() + b"\n"


SPACES = bytes.maketrans(b"\r\n", b"  ")
