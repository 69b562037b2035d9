"""Tars of samples that are cut anew: the plan has the members' places, from the headers alone; bytes come by range.

What webdataset's readers would make half samples of (interleaved members, dotted keys, members twice) is found when the
tar is listed, by the rules of `pool.shards`; so is damage, behind which the rest of a tar is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.pool.shards import Parts, index_shard
from tasks.pool.validation import DAMAGE, IMAGE_EXTENSIONS, Rejected, printable, record_of
from tasks.sharding.attempts import Attempt, Given

AT_ONCE = 16 << 20
"""Bytes of members that are read together."""
CAPTION_KEYS = ("caption", "text", "title")
"""Of a json, where there is no text beside it."""


def planned(url: str, name: str, stamp: str, reader: Reader) -> Iterator[Attempt]:
    """An attempt a sample, in the tar's order, then what is wrong with the tar; damage has no member."""
    index = index_shard(url, name, reader, _placed, data=False)
    for row in index.rows:
        members = json.dumps(row["members"])
        size = sum(length for _, _, length in row["members"])
        yield Attempt("member", url, f"{name}#{printable(row['key'])}", stamp, size, members=members)
    for one in index.rejects:
        told = f"{one['reason']}: {one['detail']}".removesuffix(": ")
        yield Attempt(
            "damage" if one["reason"] in DAMAGE else "member", url, f"{name}#{one['member']}", stamp, error=told
        )
    if not index.rows:
        say(f"{url}: no sample in it")


def read_members(attempts: Sequence[Attempt], reader: Reader) -> Iterator[Given]:
    """The samples of one tar, in their order."""
    waiting: list[Attempt] = []
    for one in attempts:
        waiting.append(one)
        if sum(attempt.size for attempt in waiting) >= AT_ONCE:
            yield from _read(waiting, reader)
            waiting = []
    yield from _read(waiting, reader)


def _placed(shard: str, key: str, parts: Parts) -> dict[str, object]:
    """A sample's members by their places, or why it is none."""
    names = [extension for extension, _ in parts]
    torn = [extension for extension, member in parts if member.torn]
    reason = "duplicate_member" if len(set(names)) < len(names) else "torn_member" if torn else ""
    row: dict[str, object] = {"key": key, "uid": None, "named_uid": False}
    if reason:
        return row | {"shard": shard, "member": printable(key), "reason": reason, "detail": ", ".join(torn or names)}
    kept = [(name, m.offset, m.size) for name, m in parts if name in (*IMAGE_EXTENSIONS, "txt", "json")]
    return row | {"members": kept, "names": names}


def _read(attempts: Sequence[Attempt], reader: Reader) -> Iterator[Given]:
    if not attempts:
        return
    members = [json.loads(one.members) if one.members else [] for one in attempts]
    spans = [(offset, offset + size) for own in members for _, offset, size in own]
    blocks = iter(reader.ranges(attempts[0].url, spans) if spans else [])
    for one, own in zip(attempts, members, strict=True):
        parts = {name: next(blocks) for name, _, _ in own}
        cut = [name for name, _, size in own if len(parts[name]) < size]
        if one.error or cut:
            yield Given.failed(one, f"truncated_tar: {', '.join(cut)}" if cut else "")
        else:
            yield _given(one, parts)


def _given(attempt: Attempt, parts: dict[str, bytes]) -> Given:
    try:
        record = record_of(parts["json"]) if "json" in parts else {}
    except Rejected as rejected:
        return Given.failed(attempt, f"{rejected.reason}: {rejected.detail}")
    image = next((parts[name] for name in IMAGE_EXTENSIONS if name in parts), None)
    return Given(attempt, image, captioned(parts.get("txt"), record), record.pop("uid", None), record)


def captioned(text: bytes | None, record: dict[str, object]) -> bytes | str | None:
    """The caption of a sample: its text, or where it has none what its json calls one."""
    if text is not None:
        return text
    return next((str(record[key]) for key in CAPTION_KEYS if isinstance(record.get(key), str)), None)
