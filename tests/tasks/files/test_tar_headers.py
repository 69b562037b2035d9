"""Tar headers made by the column: byte for byte what `tarfile` writes."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.files.tar_headers import BLOCK, LARGEST, archive_size, describes, headers, padded

NAMES = st.text("0123456789abcdef-.", min_size=1, max_size=100)
MEMBERS = st.lists(st.tuples(NAMES, st.integers(0, LARGEST - 1)), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(MEMBERS)
def test_equal_to_tarfile(members: list[tuple[str, int]]) -> None:
    names = np.array([name.encode() for name, _ in members], "S100").view(np.uint8).reshape(-1, 100)
    sizes = np.array([size for _, size in members])
    for block, (name, size) in zip(headers(names, sizes), members, strict=True):
        reference = tarfile.TarInfo(name)
        reference.size, reference.mode = size, 0o444
        assert block.tobytes() == reference.tobuf(tarfile.USTAR_FORMAT)
        assert describes(block.tobytes(), size) and not describes(block.tobytes(), size ^ 1)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_of_any_dialect_are_recognised(form: int) -> None:
    header = tarfile.TarInfo("a" * 90 + ".png")
    header.size = 12345
    assert describes(header.tobuf(form)[-BLOCK:], 12345)
    binary = bytearray(header.tobuf(form)[-BLOCK:])
    binary[124:136] = b"\x80" + (12345).to_bytes(11, "big")
    binary[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(binary))[0]
    assert describes(bytes(binary), 12345) and not describes(bytes(binary), 12344)
    assert not describes(b"\0" * BLOCK, 0) and not describes(b"x" * BLOCK, 0) and not describes(b"", 0)


@pytest.mark.parametrize("sizes", [[], [0], [1], [511, 512, 513], [9000] * 3])
def test_length_of_an_archive(sizes: list[int]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for i, size in enumerate(sizes):
            header = tarfile.TarInfo(str(i))
            header.size = size
            tar.addfile(header, io.BytesIO(bytes(size)))
    assert len(buffer.getvalue()) == archive_size(int((padded(np.array(sizes, np.int64)) + BLOCK).sum()))


def test_what_a_header_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="sizes up to 8,589,934,592"):
        headers(np.zeros((1, 10), np.uint8), np.array([LARGEST]))
