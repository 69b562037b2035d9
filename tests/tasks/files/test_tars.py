"""Walking tars: the same members as `tarfile` where a tar is sound, and never a silent end where it is
not."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.files.tars import Member, TarDamage, walk

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
MEMBERS = [("a.png", b"x" * 700), ("a.txt", b""), ("b.json", b"y" * 512), ("b.txt", b"z")]


def members(data: bytes) -> list[Member]:
    return list(walk(io.BytesIO(data), len(data)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["short.txt", "d/" * 60 + "long.txt", "n" * 140 + ".txt", "ümläut.txt"])
def test_equals_tarfile(tar: Callable[..., bytes], form: int, name: str) -> None:
    if form == tarfile.USTAR_FORMAT and len(name) > 130 and "/" not in name:
        pytest.skip("ustar has no room for this name")
    data = tar([*MEMBERS, (name, b"long"), ("last.txt", b"!")], form)
    found = members(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as reference:
        expected = [(m.name, m.offset_data, m.size) for m in reference.getmembers()]
    assert [(m.name, m.offset, m.size) for m in found] == expected
    assert all(data[m.offset : m.offset + m.size] == m.data for m in found)


def test_directories_and_links_are_passed_over() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, "a", 4096 if kind == tarfile.LNKTYPE else 0
            archive.addfile(entry)
        entry = tarfile.TarInfo("a.txt")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"a"))
    assert [m.name for m in members(buffer.getvalue())] == ["a.txt"]


def test_every_cut_is_seen(tar: Callable[..., bytes]) -> None:
    """Cut anywhere before the end-of-archive block, between members too, a tar is truncated; tarfile misses
    some of these."""
    data = tar(MEMBERS)
    end = max(m.offset + -(-m.size // 512) * 512 for m in members(data))
    for cut in range(0, end + 512, 37):
        with pytest.raises(TarDamage) as caught:
            members(data[:cut])
        assert caught.value.reason == "truncated_tar"
    assert len(members(data[: end + 512])) == 4


def test_a_damaged_header_and_trailing_data_are_corruption(tar: Callable[..., bytes]) -> None:
    data = bytearray(tar(MEMBERS))
    second = members(bytes(data))[1].offset - 512
    data[second + 3] ^= 1
    for bad in (bytes(data), tar(MEMBERS) + tar(MEMBERS), b"\x1f\x8b" + bytes(600), b"no tar" * 200):
        with pytest.raises(TarDamage) as caught:
            members(bad)
        assert caught.value.reason == "corrupt_tar"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 255)), min_size=1, max_size=4),
    st.sampled_from(FORMS),
)
def test_any_flipped_bytes_end_in_members_or_damage(flips: list[tuple[int, int]], form: int) -> None:
    """No mutation hangs, crashes, or gives members beyond the file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in [*MEMBERS, ("n" * (140 if form != tarfile.USTAR_FORMAT else 9), b"w" * 30)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    data = bytearray(buffer.getvalue())
    for place, value in flips:
        data[place % len(data)] ^= value
    try:
        assert all(0 <= m.offset <= m.offset + m.size <= len(data) for m in members(bytes(data)))
    except TarDamage as damage:
        assert damage.reason in ("truncated_tar", "corrupt_tar") and damage.detail
