"""Attempts: what may become a sample, in the order of the sources; as the plan on disk holds them, a row each.

An attempt says where its picture lies, not what is in it: a file of its own (`picture`), a row of a Parquet file
(`row`), or the members of a tar (`member`). Its caption comes along where a listing has it, else it is read with the
picture. `error` says what is known to be wrong before anything is read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

from mgd_core.errors import UserError
from tasks.files.artefacts import digest

FAILED = "failed_to_download"
"""img2dataset's status of what there was no picture of; `UNFIT` that of a picture that cannot be used."""
UNFIT = "failed_to_resize"


class ShardingError(UserError, ValueError):
    """Sources that cannot be sharded as they are; the message says what, where, why and what to do."""


@dataclass(frozen=True)
class Attempt:
    """One row of a plan."""

    kind: str
    """picture, row or member."""
    url: str
    """The picture's file, or the one that it is in."""
    name: str
    """What records call it: its path below the source, the row behind a #."""
    stamp: str = ""
    """Size and version of the file; empty where nobody told."""
    size: int = 0
    """Bytes that are read of it, about."""
    start: int = -1
    """Row of a Parquet file."""
    members: str = ""
    """JSON list of (extension, offset, size) of a tar's members."""
    caption: str | None = None
    uid: str | None = None
    text: str = ""
    """File of the caption."""
    json: str = ""
    """File of further columns."""
    columns: str = ""
    """Further columns, a JSON object."""
    column: str = ""
    """Columns of a Parquet file that have picture, caption and uid, a JSON list."""
    error: str = ""
    status: str = FAILED


RAW = ("url", "text", "json", "caption")
"""Texts that may have bytes that are no UTF-8: names of files, captions of a table."""
PLAN = pa.schema(
    [
        (one.name, pa.int64() if one.type == "int" else pa.binary() if one.name in RAW else pa.string())
        for one in fields(Attempt)
    ]
)
"""A plan's columns."""


def table_of(attempts: list[Attempt]) -> pa.Table:
    """Attempts as a table of schema PLAN."""
    rows = [asdict(one) for one in attempts]
    for row in rows:
        row |= {name: _octets(row[name]) for name in RAW}
    return pa.table([pa.array([row[name] for row in rows], PLAN.field(name).type) for name in PLAN.names], schema=PLAN)


def attempts_of(table: pa.Table) -> list[Attempt]:
    """The attempts of a table of schema PLAN."""
    rows = table.to_pylist()
    for row in rows:
        row |= {name: row[name].decode("utf-8", "surrogateescape") for name in RAW if row[name] is not None}
    return [Attempt(**row) for row in rows]


def digest_of(attempts: list[Attempt]) -> str:
    """Digest of all that decides what becomes of attempts: not of where their sources lie, but where a file's version
    is not known the address stands for it."""
    rows = [asdict(one) for one in attempts]
    for row in rows:
        if row["stamp"]:
            row |= {name: bool(row[name]) for name in ("url", "text", "json")}
    return digest(json.dumps(rows).encode())


def _octets(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


@dataclass
class Given:
    """An attempt as it was read: its picture, caption and uid, further columns, or what went wrong."""

    attempt: Attempt
    image: bytes | None = None
    caption: str | bytes | None = None
    uid: Any = None
    record: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    status: str = FAILED
    from_source: bool = False
    """Whether the source itself had noted the failure, as img2dataset does."""

    @classmethod
    def failed(cls, attempt: Attempt, error: str = "", status: str = "") -> Given:
        """One that nothing was to be had of."""
        return cls(attempt, uid=attempt.uid, error=error or attempt.error, status=status or attempt.status)
