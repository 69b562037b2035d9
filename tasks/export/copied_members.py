"""Copied members: is what was read from a tar the sample that the pool's table says?

A pool's tars may have been replaced since they were indexed, and a byte range would then give another picture without a
word. So a member counts only if its header stands before it with the size that the table says, and a sample only if the
uid in its json (or, without one, its content's hash) is the one that was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mgd_core.errors import UserError
from tasks.files.artefacts import canonical_json
from tasks.files.tar_headers import BLOCK, describes
from tasks.tables.uids import content_uid, normalise

# The uid as the first entry of a json member, where img2dataset puts it: no need to parse the rest.
FIRST_UID = re.compile(rb'\s*\{\s*"uid"\s*:\s*"([0-9a-f]{32})"')
REMEDY = "The shard was replaced or cut since it was indexed: restore it, or index the pool again"

Block = bytes | OSError
"""The bytes of a sample, or why they cannot be read."""


class LostSample(UserError, ValueError):
    """A sample that cannot be copied; `reason` is one word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def members_of(block: Block, places: Sequence[int], sizes: Sequence[int]) -> list[memoryview]:
    """The members that begin at `places` of a block; empty where the size is -1. Raises LostSample when they do not."""
    if isinstance(block, OSError):
        reason = "missing_shard" if isinstance(block, FileNotFoundError) else "unreadable_shard"
        raise LostSample(reason, f"{type(block).__name__}: {block}")
    view, found = memoryview(block), []
    for place, size in zip(places, sizes, strict=True):
        if size < 0:
            found.append(view[:0])
        elif place + size <= len(block) and describes(block[place - BLOCK : place], size):
            found.append(view[place : place + size])
        else:
            raise LostSample("shard_changed", f"no member of {size:,} bytes where the index has one. {REMEDY}")
    return found


def record_of(uid: str, image: memoryview, text: memoryview, record: bytes) -> bytes:
    """The json member to write: the sample's own where it names its uid in 32 lowercase digits, else one that does.

    Raises LostSample when it is another sample's.
    """
    first = FIRST_UID.match(record)
    if first and first[1] == uid.encode():
        return record
    try:
        known: Mapping[str, Any] = json.loads(record, parse_constant=lambda _: None) if record else {}
        found = normalise(known["uid"]) if "uid" in known else content_uid(bytes(image), bytes(text))
    except (ValueError, TypeError) as error:
        raise LostSample("shard_changed", f"the json member cannot be read ({error}). {REMEDY}") from error
    if found != uid:
        raise LostSample("shard_changed", f"sample {found} lies there. {REMEDY}")
    return record if known.get("uid") == uid else canonical_json({**known, "uid": uid})
