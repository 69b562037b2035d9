"""Tar headers, many at once: 512 bytes a member, equal to what `tarfile` writes in its ustar form.

Writing members through `tarfile` costs about 30 µs each, more than copying a small picture; here the headers of a whole
shard are one array, its names, sizes and check sums filled in by column. Owner, group and times are zero and the mode
is 0444, so that equal members give equal bytes.
"""

from __future__ import annotations

import tarfile

import numpy as np
import numpy.typing as npt

from mgd_core.errors import UserError

BLOCK = 512
LONGEST_NAME = 100
LARGEST = 8 << 30
"""Bytes from which on a size does not fit the header's 11 octal digits."""
# Where the fields are (POSIX.1-1988, ustar).
NAME, SIZE, CHECKSUM = slice(0, LONGEST_NAME), slice(124, 135), slice(148, 154)
SIZE_DIGITS, CHECKSUM_DIGITS = 11, 6

Octets = npt.NDArray[np.uint8]


class BeyondHeader(UserError, ValueError):
    """A sample too large, or a name too long, for a header that every tar reader knows."""


def headers(names: Octets, sizes: npt.NDArray[np.int64]) -> Octets:
    """Headers (n, 512) of regular files called `names` (n, at most 100; padded with zeros) of `sizes` (n,) bytes."""
    if names.shape[1] > LONGEST_NAME or (len(sizes) and int(sizes.max()) >= LARGEST):
        raise BeyondHeader(
            f"names of up to {names.shape[1]} bytes, sizes up to {sizes.max():,}: beyond what a header holds"
        )
    blocks = np.tile(_template(), (len(names), 1))
    blocks[:, : names.shape[1]] = names
    blocks[:, SIZE] = _octal(sizes, SIZE_DIGITS)
    # The check sum counts its own field as blanks.
    blocks[:, 148:156] = ord(" ")
    sums = blocks.sum(axis=1, dtype=np.int64)
    blocks[:, CHECKSUM] = _octal(sums, CHECKSUM_DIGITS)
    blocks[:, CHECKSUM.stop] = 0
    return blocks


def padded(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bytes that members of `sizes` bytes take in a tar, headers not counted: whole blocks."""
    return -(-sizes // BLOCK) * BLOCK


def archive_size(members: int) -> int:
    """Bytes of a tar whose members, headers included, take `members` bytes: the end mark, and whole records."""
    return -(-(members + 2 * BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def describes(header: bytes, size: int) -> bool:
    """Whether 512 bytes are the header of a member of `size` bytes, in any dialect that `tarfile` reads."""
    if header[SIZE] == b"%011o" % size:
        return True
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size == size
    except (tarfile.HeaderError, ValueError):
        return False


def _template() -> Octets:
    header = tarfile.TarInfo("")
    header.mode, header.mtime = 0o444, 0
    return np.frombuffer(header.tobuf(tarfile.USTAR_FORMAT), np.uint8)


def _octal(values: npt.NDArray[np.int64], digits: int) -> Octets:
    shifts = 3 * np.arange(digits - 1, -1, -1)
    return (((values[:, None] >> shifts) & 7) + ord("0")).astype(np.uint8)
