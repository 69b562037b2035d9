"""Walking a tar: every member with the byte offset and size of its data, and a plain word on any damage.

Python's own `tarfile` is not used for reading because it ends without an error at a damaged header and at an
archive that stops between two members: the samples behind are lost in silence. Here an archive is sound only
if every header passes its check sum, every member's bytes are there, the end-of-archive block is there, and
nothing but zeros follows it.

Reads ustar, GNU long names and pax names, uncompressed. Each regular member's bytes are read once, in order,
so a remote tar is one stream. One member's bytes are in memory at a time.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mgd_core.errors import UserError
from tasks.files.file_forms import form_of

BLOCK = 512
REGULAR = {b"0", b"\0", b"7"}
LONG_NAME, PAX, PAX_GLOBAL, LONG_LINK = b"L", b"x", b"g", b"K"
# A header's own size for these says nothing about bytes that follow: links, devices, directories, pipes.
WITHOUT_DATA = {b"1", b"2", b"3", b"4", b"5", b"6"}
# Names and pax records longer than this are damage, not names.
LONGEST_NAME = 1 << 20
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class TarDamage(UserError, ValueError):
    """The archive cannot be read past this point. `reason` is truncated_tar or corrupt_tar."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its data lies at bytes [offset, offset + size) of the archive."""

    name: str
    offset: int
    size: int
    data: bytes
    torn: bool = False
    """Whether something but zeros follows in the member's last block: it was longer when it was written."""


def walk(file: BinaryIO, length: int, data: bool = True) -> Iterator[Member]:
    """The regular members of an open tar of `length` bytes, in order, without their bytes where `data` is false; raises
    TarDamage where it stops being one."""
    offset, long_name = 0, None
    while True:
        header = _header(file, offset, length)
        if header is None:
            return _check_end(file, offset + BLOCK, length)
        start = offset + BLOCK
        size = 0 if header.type in WITHOUT_DATA else header.size
        if start + size > length:
            missing = start + size - length
            raise TarDamage("truncated_tar", f"member {header.name!r} lacks its last {missing:,} of {size:,} bytes")
        skipped = 0 if data or header.type not in REGULAR else size // BLOCK * BLOCK
        if skipped:
            file.seek(skipped, os.SEEK_CUR)
        content, padding = _data(file, header, size - skipped)
        offset = start + -(-size // BLOCK) * BLOCK
        if header.type in (LONG_NAME, PAX):
            long_name = _long_name(header.type, content) or long_name
        elif header.type in REGULAR:
            torn = bool(padding.strip(b"\0"))
            yield Member(long_name or header.name, start, size, content if data else b"", torn)
            long_name = None
        elif header.type not in (PAX_GLOBAL, LONG_LINK):
            long_name = None


def _header(file: BinaryIO, offset: int, length: int) -> tarfile.TarInfo | None:
    """The header at `offset`, or None at the end-of-archive block."""
    block = file.read(BLOCK)
    form = form_of(block) if offset == 0 else ""
    if form.startswith(("a page", "a Git LFS")):
        raise TarDamage("corrupt_tar", f"the file is {form}")
    if len(block) < BLOCK:
        end = "is empty" if not length else f"ends at byte {length:,} without its end-of-archive block"
        raise TarDamage("truncated_tar", f"the file {end}")
    for magic, name in COMPRESSED.items():
        if offset == 0 and block.startswith(magic):
            raise TarDamage(
                "corrupt_tar", f"the file is compressed ({name}); samples need byte offsets: unpack it to .tar"
            )
    if not block.strip(b"\0"):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise TarDamage("corrupt_tar", f"no tar header at byte {offset:,} of {length:,} ({error})") from error
    if header.size < 0 or header.type == tarfile.GNUTYPE_SPARSE:
        raise TarDamage("corrupt_tar", f"member {header.name!r} at byte {offset:,} has size {header.size} or is sparse")
    return header


def _data(file: BinaryIO, header: tarfile.TarInfo, size: int) -> tuple[bytes, bytes]:
    """A member's bytes, and what fills its last block."""
    if header.type not in REGULAR and size > LONGEST_NAME:
        raise TarDamage("corrupt_tar", f"a member of type {header.type!r} claims {size:,} bytes")
    data, padding = file.read(size), file.read(-size % BLOCK)
    if len(data) + len(padding) < size + -size % BLOCK:
        raise TarDamage("truncated_tar", f"the file ends inside member {header.name!r}")
    return data, padding


def _long_name(kind: bytes, data: bytes) -> str | None:
    """The name that a GNU or pax record gives to the next member. A pax `size` is refused: no sample has 8 GiB."""
    if kind == LONG_NAME:
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
    name = None
    while data.strip(b"\0"):
        digits, _, _ = data.partition(b" ")
        if not digits.isdigit() or len(digits) > 7 or not len(digits) < int(digits) <= len(data):
            raise TarDamage("corrupt_tar", "a pax record's length does not fit")
        key, _, value = data[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if key == b"size":
            raise TarDamage("corrupt_tar", "a member of 8 GiB or more is no image, caption or record")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        data = data[int(digits) :]
    return name


def _check_end(file: BinaryIO, offset: int, length: int) -> None:
    """After the end block only zeros may follow: readers stop there, so anything else would be lost unseen."""
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\0"):
            raise TarDamage("corrupt_tar", f"data follow the end-of-archive block at byte {offset:,} of {length:,}")
