"""uids: the 128-bit identity of a sample in its four forms, and the ways between them.

Text is 32 lowercase hex digits, left-padded with zeros; in Arrow, Parquet and DuckDB it is a UUID (16 bytes,
big-endian); in numpy an array of `S16`; in a DataComp subset file two little-endian 64-bit words (high, low).
All four sort alike.

Nothing here is a random UUID: the type is used because it is the one 128-bit type that Parquet and DuckDB
both keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mgd_core.errors import UserError

UID = pa.uuid()
DATACOMP = np.dtype("u8,u8")
HEX = re.compile(r"[0-9a-f]{1,32}")

Words = npt.NDArray[np.void]
Bytes16 = npt.NDArray[np.bytes_]


class UidError(UserError, ValueError):
    """What should be a uid is none, or is missing."""


def normalise(value: object) -> str:
    """A uid as 32 lowercase hex digits; raises UidError for what is not up to 32 hex digits (dashes
    allowed)."""
    text = value.strip().lower().replace("-", "") if isinstance(value, str) else ""
    if not HEX.fullmatch(text):
        raise UidError(f"{value!r} is not a uid: expected up to 32 hex digits")
    return text.zfill(32)


def content_uid(image: bytes, text: bytes) -> str:
    """The uid of a sample that brings none: blake2b-128 of its image bytes (length first) and caption
    bytes."""
    return blake2b(len(image).to_bytes(8, "little") + image + text, digest_size=16).hexdigest()


def uid_array(values: Iterable[Any] | pa.Array | pa.ChunkedArray | Bytes16) -> pa.Array:
    """uids in any form (hex text, 16 bytes, UUID, numpy S16) as one Arrow UUID array."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        if values.type == UID:
            return values
        if pa.types.is_fixed_size_binary(values.type) and values.type.byte_width == 16:
            return pa.ExtensionArray.from_storage(UID, values)
        values = values.to_pylist()
    if isinstance(values, np.ndarray):
        flat = np.ascontiguousarray(values.astype("S16", copy=False))
        storage = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(flat), [None, pa.py_buffer(flat)])
        return pa.ExtensionArray.from_storage(UID, storage)
    return pa.array([_as_bytes(value) for value in values], UID)


def uid_bytes(uids: Iterable[Any] | pa.Array | pa.ChunkedArray) -> Bytes16:
    """uids as numpy `S16`, which sorts, searches and compares as the hex text does."""
    array = uid_array(uids)
    if array.null_count:
        raise UidError(f"{array.null_count} of {len(array)} uids are missing")
    # A take makes the slice's bytes start at 0 of its buffer.
    storage = array.storage.take(pa.array(np.arange(len(array)))) if array.offset else array.storage
    return np.frombuffer(storage.buffers()[1], "S16", count=len(array)) if len(array) else np.empty(0, "S16")


def uid_hex(uids: Iterable[Any] | pa.Array | pa.ChunkedArray) -> list[str]:
    """uids as 32 lowercase hex digits each."""
    return [value.hex() for value in uid_array(uids).storage.to_pylist()]


def to_words(uids: Iterable[Any] | pa.Array | pa.ChunkedArray) -> Words:
    """uids as DataComp's numpy records `u8,u8`: high and low 64 bits."""
    pairs = uid_bytes(uids).view(">u8").reshape(-1, 2)
    words = np.empty(len(pairs), DATACOMP)
    words["f0"], words["f1"] = pairs[:, 0], pairs[:, 1]
    return words


def from_words(words: Words) -> Bytes16:
    """DataComp's records back as numpy `S16`."""
    pairs = np.stack([words["f0"], words["f1"]], axis=1).astype(">u8")
    return np.ascontiguousarray(pairs).view("S16").reshape(-1)


def first_repeat(ordered: Sequence[bytes] | Bytes16) -> int | None:
    """Position of the first entry of a sorted array that equals the one before it, or None."""
    array = np.asarray(ordered, "S16")
    repeats = np.flatnonzero(array[1:] == array[:-1])
    return int(repeats[0]) + 1 if len(repeats) else None


def _as_bytes(value: Any) -> bytes | None:
    if value is None or (isinstance(value, bytes) and len(value) == 16):
        return value
    if isinstance(value, bytes | np.bytes_):
        return bytes(value).ljust(16, b"\0")  # numpy's S16 drops trailing zero bytes of an element
    return bytes.fromhex(normalise(value if isinstance(value, str) else str(value)))
