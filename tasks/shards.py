"""WebDataset shards: writing them with the same bytes every time, and indexing any that exist.

A shard is a tar whose adjacent members `<key>.jpg|png|webp`, `<key>.json`, `<key>.txt` are one sample. The
index gives each sample its uid, caption, size and the byte range of each member, so that it can be read later
without the rest of the shard; every image is decoded once here, so that what training meets is known to be
readable. What cannot be used becomes a reject with a reason (`REASONS`), never a silent skip.

Cost: one sequential read of the tar and one decode an image. `tarfile` writes the tars: webdataset's own
writer adds nothing for members that already are bytes, and importing it imports torch.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from PIL import Image, UnidentifiedImageError

from tasks.artefacts import canonical_json, publishing
from tasks.tars import Member, TarDamage, walk
from tasks.uids import content_uid, normalise

# The order in which open_clip looks for a sample's image.
IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")
# A JPEG with several pictures in it (phones write them) calls itself MPO; the first picture is a plain JPEG.
FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
# How webdataset splits a member's name, and the names it passes over.
NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)
META = re.compile(r"__[^/]*__($|/)")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")

REASONS = {
    "truncated_tar": "the tar ends too early; the samples before the cut are kept, the rest is lost",
    "corrupt_tar": "the tar is damaged; the samples before the damage are kept, the rest is lost",
    "empty_tar": "the tar holds no sample",
    "stray_member": "a member's name has no key and extension, so it belongs to no sample",
    "duplicate_member": "the shard holds two members of one name, so it is unclear which belong together",
    "interleaved_members": "a sample's members are not adjacent; WebDataset readers would see half samples",
    "missing_image": "the sample has no jpg, png or webp member",
    "missing_text": "the sample has no txt member",
    "bad_text": "the caption is not UTF-8",
    "empty_text": "the caption is empty or blank",
    "bad_json": "the json member is not a JSON object",
    "bad_uid": "the uid in the json member is not up to 32 hex digits",
    "undecodable_image": "the image is not a readable JPEG, PNG or WebP picture",
    "duplicate_uid": "another sample of the pool has this uid and comes first",
}
DAMAGE = ("truncated_tar", "corrupt_tar")


@dataclass(frozen=True)
class Sample:
    """What goes into a shard: image bytes in `image_format` (jpg, png, webp), caption, and the json member's
    content."""

    key: str
    image: bytes
    image_format: str
    text: str | bytes
    record: Mapping[str, Any] | bytes


@dataclass(frozen=True)
class ShardIndex:
    """One shard's samples (columns of the samples table, uid as hex, `upstream` a dict) and rejects, in tar
    order."""

    rows: list[dict[str, Any]]
    rejects: list[dict[str, Any]]


class _Rejected(ValueError):
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def write_shard(path: str | Path, samples: Iterable[Sample]) -> None:
    """Publish a tar of `samples`, in order, members as DataComp orders them; equal samples give equal
    bytes."""
    with publishing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            text = sample.text.encode() if isinstance(sample.text, str) else sample.text
            record = (
                sample.record if isinstance(sample.record, bytes) else canonical_json(dict(sample.record))
            )
            for extension, data in ((sample.image_format, sample.image), ("json", record), ("txt", text)):
                header = tarfile.TarInfo(f"{sample.key}.{extension}")
                header.size, header.mode, header.mtime = len(data), 0o444, 0
                tar.addfile(header, io.BytesIO(data))


def index_shard(url: str, name: str | None = None) -> ShardIndex:
    """Index the tar at `url` (a path or any fsspec URL); `name` is what the `shard` column says instead of
    the URL.

    Damage and bad samples come back as rejects; a file that cannot be opened or read raises OSError.
    """
    fs, path = url_to_fs(url)
    shard = name or url
    rejects: list[dict[str, Any]] = []
    found: dict[str, list[tuple[set[str], dict[str, Any]]]] = {}
    with fs.open(path, "rb") as file:
        members = _named(walk(file, fs.info(path)["size"]), shard, rejects)
        try:
            for key, group in groupby(members, key=lambda item: item[0]):
                parts = [(extension, member) for _, extension, member in group]
                found.setdefault(key, []).append(
                    ({extension for extension, _ in parts}, _judge(shard, key, parts))
                )
        except TarDamage as damage:
            detail = f"{damage.detail}; {len(found)} samples before it were read, all that follows is lost"
            rejects.append(_reject(shard, "", damage.reason, detail))
    results = [_settle(shard, key, runs) for key, runs in found.items()]
    if not results and not rejects:
        rejects.append(_reject(shard, "", "empty_tar"))
    rows = [result for result in results if "reason" not in result]
    return ShardIndex(rows, [result for result in results if "reason" in result] + rejects)


def _named(
    members: Iterable[Member], shard: str, rejects: list[dict[str, Any]]
) -> Iterator[tuple[str, str, Member]]:
    """(key, extension, member) of each member that can belong to a sample; the others go to `rejects`."""
    for member in members:
        match = NAME.match(member.name)
        if META.match(member.name):
            continue
        if match:
            yield match[1], match[2].lower(), member
        else:
            rejects.append(_reject(shard, member.name, "stray_member"))


def _settle(shard: str, key: str, runs: list[tuple[set[str], dict[str, Any]]]) -> dict[str, Any]:
    """The one result of a key: its row or reject, or a reject when the key's members lie in several
    places."""
    if len(runs) == 1:
        return runs[0][1]
    extensions = [extension for names, _ in runs for extension in names]
    twice = sorted({extension for extension in extensions if extensions.count(extension) > 1})
    reason = "duplicate_member" if twice else "interleaved_members"
    detail = f"in {len(runs)} places" + (f"; twice: {', '.join(twice)}" if twice else "")
    return _reject(shard, key, reason, detail)


def _judge(shard: str, key: str, parts: list[tuple[str, Member]]) -> dict[str, Any]:
    """The samples row of one run of members, or its reject."""
    uid = None
    try:
        members = dict(parts)
        if len(members) < len(parts):
            raise _Rejected("duplicate_member", ", ".join(extension for extension, _ in parts))
        record = _record(members.get("json"))
        if "uid" in record:
            uid = _uid(record.pop("uid"))
        image, text = _image(members), _text(members)
        uid = uid or content_uid(image.data, members["txt"].data)
        image_format, (width, height) = _decode(image.data)
    except _Rejected as rejected:
        return _reject(shard, key, rejected.reason, rejected.detail, uid)
    row: dict[str, Any] = {"uid": uid, "shard": shard, "key": _printable(key)}
    for column, member in (("image", image), ("text", members["txt"]), ("json", members.get("json"))):
        row[f"{column}_offset"], row[f"{column}_size"] = (
            (member.offset, member.size) if member else (None, None)
        )
    return row | {
        "image_format": image_format,
        "text": text,
        "width": width,
        "height": height,
        "upstream": record,
    }


def _record(member: Member | None) -> dict[str, Any]:
    """The json member's object; NaN and infinities, which JSON does not have, become null."""
    if member is None:
        return {}
    try:
        record = json.loads(member.data, parse_constant=lambda _: None)
        canonical_json(record)  # refuses text that is not Unicode, and numbers past the range of a double
    except (ValueError, RecursionError) as error:
        raise _Rejected("bad_json", str(error)) from error
    if not isinstance(record, dict):
        raise _Rejected("bad_json", f"a JSON {type(record).__name__}, not an object")
    return record


def _uid(value: object) -> str:
    try:
        return normalise(value)
    except ValueError as error:
        raise _Rejected("bad_uid", str(error)) from error


def _image(members: Mapping[str, Member]) -> Member:
    for extension in IMAGE_EXTENSIONS:
        if extension in members:
            return members[extension]
    raise _Rejected("missing_image", f"members: {', '.join(members)}")


def _text(members: Mapping[str, Member]) -> str:
    if "txt" not in members:
        raise _Rejected("missing_text", f"members: {', '.join(members)}")
    try:
        text = members["txt"].data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Rejected("bad_text", str(error)) from error
    if not text.strip():
        raise _Rejected("empty_text")
    return text


def _decode(data: bytes) -> tuple[str, tuple[int, int]]:
    """Format and (width, height) of an image that decodes to its last pixel."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            image.load()
            return FORMATS[image.format or ""], image.size
    except UnidentifiedImageError as error:
        raise _Rejected("undecodable_image", "not a JPEG, PNG or WebP picture") from error
    except Exception as error:  # decoders raise whatever they like on damaged bytes; each means the same here
        # Memory addresses in a message would make two runs' tables differ.
        raise _Rejected("undecodable_image", ADDRESS.sub("", f"{type(error).__name__}: {error}")) from error


def _reject(shard: str, member: str, reason: str, detail: str = "", uid: str | None = None) -> dict[str, Any]:
    return {
        "shard": shard,
        "member": _printable(member),
        "uid": uid,
        "reason": reason,
        "detail": _printable(detail),
    }


def _printable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a member's name that are not UTF-8 show as replacement signs."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
