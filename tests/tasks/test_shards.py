"""Shards: written alike every time, read by the real webdataset, indexed with every defect named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.samples import read_images, read_members
from tasks.shards import Sample, index_shard, write_shard
from tasks.uids import content_uid
from tasks.verdicts import REASONS


def reasons(path: str) -> list[tuple[str, str]]:
    return [(reject["member"], reject["reason"]) for reject in index_shard(path).rejects]


def test_writing_twice_gives_the_same_bytes_and_webdataset_reads_them(
    tmp_path: Path, picture: Callable[..., bytes], uid: Callable[[int], str]
) -> None:
    import webdataset

    samples = [
        Sample(f"{i:03d}", picture(i), "png", f"caption ü {i}", {"uid": uid(i), "b": i, "a": None}) for i in range(5)
    ]
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, samples)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    read = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode())
    assert [r["txt"] for r in read] == [s.text for s in samples]
    assert [r["json"]["uid"] for r in read] == [uid(i) for i in range(5)]
    assert [r["__key__"] for r in read] == [s.key for s in samples]


def test_the_index_gives_every_member_by_its_bytes(shard: Callable[..., str], good: Callable[..., list]) -> None:
    sources = [good(i, style="s", nested={"k": [1]}) for i in range(3)]
    path = shard([member for source in sources for member in source])
    index = index_shard(path, "shards/00000.tar")
    assert not index.rejects and [row["key"] for row in index.rows] == ["0000", "0001", "0002"]
    assert index.rows[1]["upstream"] == {"style": "s", "nested": {"k": [1]}}
    assert (index.rows[0]["width"], index.rows[0]["height"], index.rows[0]["image_format"]) == (5, 4, "png")
    rows = [{**row, "shard": path} for row in index.rows]
    assert read_images(rows) == [source[0][1] for source in sources]
    found = read_members(rows)[2]
    assert (found["image"], found["json"], found["text"]) == tuple(data for _, data in sources[2])


@pytest.mark.parametrize(
    ("kind", "extension", "expected"),
    [
        ("JPEG", "jpg", "jpg"),
        ("JPEG", "jpeg", "jpg"),
        ("WEBP", "webp", "webp"),
        ("PNG", "PNG", "png"),
        ("PNG", "jpg", "png"),
    ],
)
def test_formats_go_by_the_bytes(
    shard: Callable[..., str], picture: Callable[..., bytes], kind: str, extension: str, expected: str
) -> None:
    path = shard([(f"k.{extension}", picture(1, kind=kind)), ("k.txt", b"t")])
    assert [row["image_format"] for row in index_shard(path).rows] == [expected]


def test_without_a_uid_the_content_gives_one(shard: Callable[..., str], picture: Callable[..., bytes]) -> None:
    path = shard([("k.png", picture(1)), ("k.txt", b"t"), ("l.json", b"{}"), ("l.png", picture(1)), ("l.txt", b"u")])
    assert [row["uid"] for row in index_shard(path).rows] == [content_uid(picture(1), text) for text in (b"t", b"u")]


def test_uids_are_normalised(shard: Callable[..., str], good: Callable[..., list]) -> None:
    members = good(1)
    members[1] = ("0001.json", b'{"uid": "ABC"}')
    assert [row["uid"] for row in index_shard(shard(members)).rows] == ["abc".zfill(32)]


BAD_SAMPLES = {
    "missing_image": [("k.txt", b"t"), ("k.json", b"{}")],
    "missing_text": [("k.png", b"P"), ("k.json", b"{}")],
    "empty_text": [("k.png", b"P"), ("k.txt", b" \n")],
    "bad_text": [("k.png", b"P"), ("k.txt", b"\xff\xfe")],
    "bad_json": [("k.png", b"P"), ("k.txt", b"t"), ("k.json", b'{"uid":')],
    "bad_uid": [("k.png", b"P"), ("k.txt", b"t"), ("k.json", b'{"uid": "not hex"}')],
    "undecodable_image": [("k.png", b"BROKEN"), ("k.txt", b"t")],
    "duplicate_member": [("k.png", b"P"), ("k.png", b"P"), ("k.txt", b"t")],
}


@pytest.mark.parametrize("reason", BAD_SAMPLES)
def test_a_bad_sample_is_rejected_and_its_neighbours_stay(
    reason: str, shard: Callable[..., str], good: Callable[..., list], picture: Callable[..., bytes]
) -> None:
    bad = [(name, picture(9) if data == b"P" else data) for name, data in BAD_SAMPLES[reason]]
    path = shard([*good(0), *bad, *good(1)])
    assert reasons(path) == [("k", reason)] and len(index_shard(path).rows) == 2
    assert reason in REASONS


@pytest.mark.parametrize("record", [b"[1]", b'"text"', b'{"a": "\\ud800"}', b"[" * 100_000, b"\xff", b""])
def test_json_that_is_no_object_is_rejected(
    record: bytes, shard: Callable[..., str], picture: Callable[..., bytes]
) -> None:
    assert reasons(shard([("k.png", picture(1)), ("k.json", record), ("k.txt", b"t")])) == [("k", "bad_json")]


def test_a_known_uid_is_told_with_the_reject(shard: Callable[..., str], good: Callable[..., list]) -> None:
    members = [member for member in good(7) if not member[0].endswith("txt")]
    (reject,) = index_shard(shard(members)).rejects
    assert reject["uid"] == "07" * 16 and "png" in reject["detail"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_cut_anywhere_is_undecodable_and_says_the_same_twice(
    kind: str, shard: Callable[..., str], picture: Callable[..., bytes]
) -> None:
    image = picture(1, size=(40, 40), kind=kind)
    for end in (1, len(image) // 3, len(image) * 2 // 3):
        path = shard([("k.png", image[:end]), ("k.txt", b"t")])
        assert reasons(path) == [("k", "undecodable_image")]
        assert index_shard(path) == index_shard(path) and "0x" not in index_shard(path).rejects[0]["detail"]


def test_interleaved_and_repeated_keys_are_rejected_once_each(
    shard: Callable[..., str], good: Callable[..., list]
) -> None:
    a, b = good(1), good(2)
    interleaved = [part for pair in zip(a, b, strict=True) for part in pair]
    assert reasons(shard([*good(0), *interleaved])) == [
        ("0001", "interleaved_members"),
        ("0002", "interleaved_members"),
    ]
    assert reasons(shard([*a, *b, *a])) == [("0001", "duplicate_member")]


def test_strays_and_metadata(shard: Callable[..., str], good: Callable[..., list]) -> None:
    path = shard([("README", b"r"), ("__meta__/x.json", b"{}"), (".hidden.png", b"h"), *good(1), ("d/x.y/README", b"")])
    assert reasons(path) == [
        ("README", "stray_member"),
        (".hidden.png", "stray_member"),
        ("d/x.y/README", "stray_member"),
    ]
    assert len(index_shard(path).rows) == 1


def test_an_empty_tar_is_a_reject(shard: Callable[..., str]) -> None:
    assert reasons(shard([])) == [("", "empty_tar")]


def test_a_truncated_tar_keeps_what_is_whole(
    shard: Callable[..., str], good: Callable[..., list], tar: Callable[..., bytes]
) -> None:
    """The sample at the cut goes too, even if image and text are there: its json, with the uid, may be what
    is missing."""
    order = [[png, txt, js] for png, js, txt in (good(i) for i in range(3))]
    data = tar([member for sample in order for member in sample])
    whole = index_shard(shard(data)).rows
    cut = shard(data[: whole[2]["json_offset"] + 3], "cut.tar")
    index = index_shard(cut)
    assert [row["uid"] for row in index.rows] == [row["uid"] for row in whole[:2]]
    assert [r["reason"] for r in index.rejects] == ["truncated_tar"] and "2 samples" in index.rejects[0]["detail"]


def test_names_that_are_not_utf8_do_no_harm(shard: Callable[..., str], picture: Callable[..., bytes]) -> None:
    name = b"k\xff".decode("utf-8", "surrogateescape")
    row = index_shard(shard([(f"{name}.png", picture(1)), (f"{name}.txt", b"t")])).rows[0]
    assert json.dumps(row["key"].encode().decode()) == '"k\\ufffd"'
