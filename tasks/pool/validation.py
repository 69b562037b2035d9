"""Validation: whether the members of one key make a usable sample, and if not, why.

A sample needs an image that decodes to its last pixel and a caption in UTF-8 that is not blank. Its json member, if
it has one, must be an object, and the uid in it, if there is one, up to 32 hex digits. Every image is decoded once
here, so that what training meets is known to be readable. Costs one decode and one hash an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from tasks.files.tars import Member
from tasks.pool.decoding import Picture, PictureError, decode
from tasks.pool.foreign_json import json_object
from tasks.tables.uids import content_uid, normalise

# The order in which open_clip looks for a sample's image.
IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")

REASONS = {
    "truncated_tar": "the tar ends too early; the samples before the cut are kept, the rest is lost",
    "corrupt_tar": "the tar is damaged; the samples before the damage are kept, the rest is lost",
    "empty_tar": "the tar holds no sample",
    "corrupt_file": "the file is damaged; the samples before the damage are kept, the rest is lost",
    "empty_file": "the file holds no sample",
    "wrong_form": "the file is no JSON lines, Parquet or tar, whatever its name; nothing of it can be read",
    "stray_member": "a member's name has no key and extension, so it belongs to no sample",
    "duplicate_member": "the shard holds two members of one name, so it is unclear which belong together",
    "interleaved_members": "a sample's members are not adjacent; WebDataset readers would see half samples",
    "torn_member": "a member is shorter than it was: the rest of its last block is not empty",
    "dotted_key": "the key has a dot in it: webdataset ends keys at the first dot, so its readers would take many such "
    "samples for one; name the members with one dot each",
    "missing_image": "the sample has no jpg, png or webp member",
    "missing_text": "the sample has no txt member; of a text sample: no prompt or completion",
    "bad_text": "the text is not UTF-8, or has a NUL in it",
    "empty_text": "the text is empty or blank",
    "bad_json": "the json member is not a JSON object",
    "bad_uid": "the uid in the json member is not up to 32 hex digits",
    "missing_uid": "the sample names no uid, though others of its shard do: nothing could be joined to it",
    "undecodable_image": "the image is not a readable JPEG, PNG or WebP picture",
    "duplicate_uid": "another sample of the pool has this uid and comes first",
}
DAMAGE = ("truncated_tar", "corrupt_tar", "corrupt_file", "wrong_form")


class Rejected(ValueError):
    """A part of a sample that cannot be used, and why: becomes a row of the rejects."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def validate(shard: str, key: str, parts: list[tuple[str, Member]]) -> dict[str, Any]:
    """The samples row of the members of one key (`parts`: extension and member), or its reject (has a `reason`).

    Beside the table's columns a row says whether it `named_uid` (else its content gave one), its `image_hash`:
    blake2b-128 of the image bytes, 16 bytes, and its `pixel_hash`: the same of its pixels.
    """
    uid = None
    try:
        members = dict(parts)
        if len(members) < len(parts):
            raise Rejected("duplicate_member", ", ".join(extension for extension, _ in parts))
        record = record_of(members["json"].data) if "json" in members else {}
        if "uid" in record:
            uid = uid_of(record.pop("uid"))
        torn = [extension for extension, member in parts if member.torn]
        if torn:
            raise Rejected("torn_member", ", ".join(torn))
        image, text = _image(members), _text(members)
        named = uid is not None
        uid = uid or content_uid(image.data, members["txt"].data)
        picture = picture_of(image.data)
        width, height = picture.image.size
    except Rejected as rejected:
        return reject(shard, key, rejected.reason, rejected.detail, uid)
    row: dict[str, Any] = {"uid": uid, "shard": shard, "key": printable(key)}
    for column, member in (("image", image), ("text", members["txt"]), ("json", members.get("json"))):
        row[f"{column}_offset"], row[f"{column}_size"] = (member.offset, member.size) if member else (None, None)
    return row | {
        "image_format": picture.format,
        "text": text,
        "width": width,
        "height": height,
        "upstream": record,
        "named_uid": named,
        "image_hash": blake2b(image.data, digest_size=16).digest(),
        "pixel_hash": picture.digest,
    }


def record_of(data: bytes) -> dict[str, Any]:
    """The object of a json member; raises Rejected."""
    try:
        return json_object(data)
    except ValueError as error:
        raise Rejected("bad_json", str(error)) from error


def uid_of(value: object) -> str:
    """A uid that somebody gave; raises Rejected."""
    try:
        return normalise(value)
    except ValueError as error:
        raise Rejected("bad_uid", str(error)) from error


def _image(members: Mapping[str, Member]) -> Member:
    for extension in IMAGE_EXTENSIONS:
        if extension in members:
            return members[extension]
    raise Rejected("missing_image", f"members: {', '.join(members)}")


def _text(members: Mapping[str, Member]) -> str:
    if "txt" not in members:
        raise Rejected("missing_text", f"members: {', '.join(members)}")
    return text_of(members["txt"].data)


def text_of(data: bytes) -> str:
    """A caption; raises Rejected."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected("bad_text", str(error)) from error
    if not text.strip():
        raise Rejected("empty_text")
    if "\0" in text:
        raise Rejected("bad_text", f"a NUL at character {text.index(chr(0)):,}: the member is longer than its caption")
    return text


def picture_of(data: bytes) -> Picture:
    """An image that decodes to its last pixel, as training will decode it; raises Rejected."""
    try:
        return decode(data)
    except PictureError as error:
        raise Rejected("undecodable_image", str(error)) from error


def reject(shard: str, member: str, reason: str, detail: str = "", uid: str | None = None) -> dict[str, Any]:
    """The row that says why a member or sample (or, with no member, a tar) cannot be used."""
    return {"shard": shard, "member": printable(member), "uid": uid, "reason": reason, "detail": printable(detail)}


def printable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a member's name that are not UTF-8 show as replacement signs."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
