"""WebDataset shards: writing them with the same bytes every time, and indexing any that exist.

A shard is a tar whose adjacent members `<key>.jpg|png|webp`, `<key>.json`, `<key>.txt` are one sample. The index
gives each sample its uid, caption, size and the byte range of each member, so that it can be read later without the
rest of the shard. What cannot be used becomes a reject with a reason (`validation.REASONS`), never a silent skip.

Cost: one sequential read of the tar and one decode an image. webdataset writes, and does not read: an index needs byte
offsets and a word on damage, which its readers have not, and importing it imports torch, which asking does without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from tasks.files.artefacts import canonical_json, publishing
from tasks.files.remote_files import Reader
from tasks.files.tars import Member, TarDamage, walk
from tasks.pool.validation import IMAGE_EXTENSIONS, reject, validate

# How webdataset splits a member's name, and the names it passes over.
NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)
META = re.compile(r"__[^/]*__($|/)")
Parts: TypeAlias = list[tuple[str, Member]]
"""Extension and member of what belongs together."""
Members: TypeAlias = Sequence[tuple[str, bytes]]
"""Extensions and bytes of a sample that is written."""
Take: TypeAlias = Callable[[str, str, Parts], dict[str, Any]]
"""From a shard's name, a key and its members to the row of a sample, or to a reject (which has a `reason`)."""


@dataclass(frozen=True)
class Sample:
    """What goes into a shard: image bytes in `image_format` (jpg, png, webp), caption, and the json member's
    content."""

    key: str
    image: bytes
    image_format: str
    text: str | bytes
    record: Mapping[str, Any] | bytes

    @property
    def members(self) -> Members:
        """Its members in DataComp's order."""
        text = self.text.encode() if isinstance(self.text, str) else self.text
        record = self.record if isinstance(self.record, bytes) else canonical_json(dict(self.record))
        return [(self.image_format, self.image), ("json", record), ("txt", text)]


@dataclass(frozen=True)
class ShardIndex:
    """One shard's samples (columns of the samples table, uid as hex, `upstream` a dict) and rejects, in tar
    order; and what else is to be told of it."""

    rows: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def write_shard(path: str | Path, samples: Iterable[Sample]) -> None:
    """Publish a tar of `samples`, in order, members as DataComp orders them."""
    with publishing(path) as file:
        write_members(file, ((sample.key, sample.members) for sample in samples))


def write_members(file: IO[bytes], samples: Iterable[tuple[str, Members]]) -> None:
    """Write a tar of samples, keys and members, in order; equal samples give equal bytes."""
    from webdataset import TarWriter  # with torch: whoever only indexes does without

    with TarWriter(file, user="", group="", mtime=0, encoder=False) as tar:
        for key, members in samples:
            for extension, data in members:
                tar.write({"__key__": key, extension: data})  # one at a time: it sorts what it gets at once


def index_shard(
    url: str, name: str | None = None, reader: Reader | None = None, take: Take = validate, data: bool = True
) -> ShardIndex:
    """Index the tar at `url` (a path or any fsspec URL); `name` is what the `shard` column says instead of the URL,
    `take` what makes rows of members, `data` whether it looks into them.

    Damage and bad samples come back as rejects; a file that cannot be opened or read raises OSError.
    """
    shard = name or url
    rejects: list[dict[str, Any]] = []
    found: dict[str, list[tuple[set[str], dict[str, Any]]]] = {}
    dotted: dict[str, dict[str, Any]] = {}
    file, length = (reader or Reader()).open(url)
    with file:
        try:
            for key, run in _runs(_named(walk(file, length, data), shard, rejects)):
                parts, hidden = _part_dotted(run)
                for stem, own in hidden.items():
                    detail = f"webdataset's key of it is {key!r}"
                    dotted[stem] = reject(shard, stem, "dotted_key", detail, take(shard, stem, own)["uid"])
                if parts:
                    found.setdefault(key, []).append((set(dict(parts)), take(shard, key, parts)))
        except TarDamage as damage:
            detail = f"{damage.detail}; {len(found)} samples before it were read, all that follows is lost"
            rejects.append(reject(shard, "", damage.reason, detail))
    results = [_settle(shard, key, runs) for key, runs in found.items()] + list(dotted.values())
    if not results and not rejects:
        rejects.append(reject(shard, "", "empty_tar"))
    rows, nameless = part_nameless(shard, [result for result in results if "reason" not in result])
    return ShardIndex(rows, [result for result in results if "reason" in result] + nameless + rejects)


def _runs(members: Iterable[tuple[str, str, Member]]) -> Iterator[tuple[str, Parts]]:
    """Key, and (extension, member) of adjacent members of that key. At damage, what came last is a sample only if
    nothing of it can be missing."""
    key, parts = "", list[tuple[str, Member]]()
    try:
        for this, extension, member in members:
            if parts and this != key:
                yield key, parts
                parts = []
            key = this
            parts.append((extension, member))
    except TarDamage:
        names = {extension for extension, _ in parts}
        if {"json", "txt"} <= names and names & {*IMAGE_EXTENSIONS}:
            yield key, parts
        elif parts and "." in parts[-1][0]:  # many dotted samples in one run: all but the last are whole
            last = parts[-1][1].name.rpartition(".")[0]
            yield key, [part for part in parts if part[1].name.rpartition(".")[0] != last]
        raise
    if parts:
        yield key, parts


def _part_dotted(
    parts: list[tuple[str, Member]],
) -> tuple[list[tuple[str, Member]], dict[str, list[tuple[str, Member]]]]:
    """The members of one key that are its own, and those of samples with a dot in their names, which begin like it
    (`a.1.jpg`, `a.1.txt`: of `a.1`). A sample's own may have dots too (`a.jpg`, `a.txt`, `a.seg.png`): only what could
    be a sample is taken for one."""
    stems: dict[str, Parts] = {}
    for extension, member in parts:
        last = extension.rpartition(".")[2]
        if last != extension and last in (*IMAGE_EXTENSIONS, "json", "txt"):
            stems.setdefault(member.name.rpartition(".")[0], []).append((last, member))
    own = {extension for extension, _ in parts} & {*IMAGE_EXTENSIONS, "txt"}
    whole = {stem: {name for name, _ in members} for stem, members in stems.items()}
    hidden = {s: m for s, m in stems.items() if not own or ("txt" in whole[s] and whole[s] & {*IMAGE_EXTENSIONS})}
    taken = {id(member) for members in hidden.values() for _, member in members}
    return [part for part in parts if id(part[1]) not in taken], hidden


def part_nameless(shard: str, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to keep and rejects: samples without a uid go where others of the shard have one. A pool that names none at
    all is fine: its samples are known by their content."""
    if all(row["named_uid"] == rows[0]["named_uid"] for row in rows):
        return rows, []
    named = sum(row["named_uid"] for row in rows)
    detail = f"{named} of the shard's {len(rows)} samples name one"
    nameless = [reject(shard, row["key"], "missing_uid", detail) for row in rows if not row["named_uid"]]
    return [row for row in rows if row["named_uid"]], nameless


def _named(members: Iterable[Member], shard: str, rejects: list[dict[str, Any]]) -> Iterator[tuple[str, str, Member]]:
    """(key, extension, member) of each member that can belong to a sample; the others go to `rejects`."""
    for member in members:
        match = NAME.match(member.name)
        if META.match(member.name):
            continue
        if match:
            yield match[1], match[2].lower(), member
        else:
            rejects.append(reject(shard, member.name, "stray_member"))


def _settle(shard: str, key: str, runs: list[tuple[set[str], dict[str, Any]]]) -> dict[str, Any]:
    """The one result of a key: its row or reject, or a reject when the key's members lie in several places."""
    if len(runs) == 1:
        return runs[0][1]
    extensions = [extension for names, _ in runs for extension in names]
    twice = sorted({extension for extension in extensions if extensions.count(extension) > 1})
    reason = "duplicate_member" if twice else "interleaved_members"
    detail = f"in {len(runs)} places" + (f"; twice: {', '.join(twice)}" if twice else "")
    return reject(shard, key, reason, detail)
