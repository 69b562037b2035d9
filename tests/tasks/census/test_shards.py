"""Shards: written alike every time, read by the real webdataset, indexed with every defect named."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.pool.pools import build_pool
from tasks.pool.samples import read_images
from tasks.pool.shards import NAME, Sample, index_shard, write_shard
from tasks.pool.validation import REASONS
from tasks.tables.uids import content_uid
from testing.sample_members import read_members


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
    with tarfile.open(tmp_path / "c.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            record = json.dumps(sample.record, sort_keys=True, separators=(",", ":")).encode()
            for end, data in (("png", sample.image), ("json", record), ("txt", sample.text.encode())):
                header = tarfile.TarInfo(f"{sample.key}.{end}")
                header.size, header.mode = len(data), 0o444
                tar.addfile(header, io.BytesIO(data))
    assert (tmp_path / "c.tar").read_bytes() == (tmp_path / "a.tar").read_bytes(), "plain ustar, nobody's, of no time"
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


@pytest.mark.parametrize("name", ["a.jpg", "a/b.c.jpg", "d.e/f.tar.gz", "a/.x", "a", "a.", ".a", "x\n.y", "a.b/c", ""])
def test_names_are_split_as_webdataset_splits_them(name: str) -> None:
    from webdataset.tariterators import base_plus_ext

    match = NAME.match(name)
    assert (match.groups() if match else (None, None)) == base_plus_ext(name)


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


@pytest.mark.parametrize("record", [b"[1]", b'"text"', b"[" * 100_000, b"\xff", b""])
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


def dotted(number: int, good: Callable[..., list]) -> list[tuple[str, bytes]]:
    """A sample as `img.00001.jpg`: to webdataset, all of them have the key `img`."""
    return [(f"img.{name}", data) for name, data in good(number)]


def test_dotted_keys_are_a_reject_a_sample_whatever_lies_beside_them(
    shard: Callable[..., str], good: Callable[..., list], uid: Callable[[int], str]
) -> None:
    members = [member for i in range(3) for member in dotted(i, good)]
    told = index_shard(shard([*good(7), *members, *good(8)]), "s")
    assert [row["uid"] for row in told.rows] == [uid(7), uid(8)]
    assert [(r["member"], r["reason"], r["uid"]) for r in told.rejects] == [
        (f"img.000{i}", "dotted_key", uid(i)) for i in range(3)
    ]
    by_kind = sorted(members, key=lambda member: member[0].rpartition(".")[2])
    assert [r["member"] for r in index_shard(shard(by_kind)).rejects] == [f"img.000{i}" for i in range(3)]
    # A sample of their key without a dot is one, and hides none of them.
    own = [(f"img{name[4:]}", data) for name, data in good(9)]
    told = index_shard(shard([*own, *members]))
    assert ([row["uid"] for row in told.rows], len(told.rejects)) == ([uid(9)], 3)


def test_a_tar_cut_within_dotted_samples_tells_those_before(
    shard: Callable[..., str], good: Callable[..., list], tar: Callable[..., bytes]
) -> None:
    data = tar([member for i in range(4) for member in dotted(i, good)])  # a block for a name, one for what it holds
    told = index_shard(shard(data[: 7 * 1024 + 600])).rejects
    assert [r["reason"] for r in told] == ["dotted_key"] * 2 + ["truncated_tar"]


def test_extensions_with_dots_beside_a_whole_sample_are_its_own(
    shard: Callable[..., str], good: Callable[..., list], picture: Callable[..., bytes]
) -> None:
    extra = [("0001.seg.png", picture(5)), ("0001.meta.json", b"{}"), ("0001.de.txt", b"Bild")]
    told = index_shard(shard([*good(1), extra[0], extra[1]]))
    assert len(told.rows) == 1 and not told.rejects
    assert len(index_shard(shard([*good(1), extra[2]])).rows) == 1


HARMLESS = {
    "1e999": None, "-1e999": None, "NaN": None, "[Infinity]": [None], str(10**30): 10**30, "9" * 4500: "9" * 4500,
    "-0.0": 0.0, '"\\ud800"': "\ufffd", '{"\\udc00": ["\\ud800x"]}': {"\ufffd": ["\ufffdx"]}, "1e-999": 0.0,
    '""': "", '"\\u0000"': "\0",
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), HARMLESS.items())
def test_values_that_we_do_not_carry_reject_no_sample(
    text: str, value: object, shard: Callable[..., str], picture: Callable[..., bytes], tmp_path: Path
) -> None:
    record = f'{{"uid": "{"ab" * 16}", "odd": {text}, "size": 3}}'.encode()
    path = shard([("k.png", picture(1)), ("k.json", record), ("k.txt", b"t")])
    (row,) = index_shard(path).rows
    assert row["upstream"] == {"odd": value, "size": 3}
    assert build_pool(path, tmp_path / "home").samples == 1


def test_deeply_nested_values_are_kept_as_text_or_named(
    shard: Callable[..., str], picture: Callable[..., bytes]
) -> None:
    for depth, known in ((50, True), (300, True), (100_000, False)):
        record = f'{{"uid": "{"ab" * 16}", "deep": {"[" * depth + "]" * depth}}}'.encode()
        told = index_shard(shard([("k.png", picture(1)), ("k.json", record), ("k.txt", b"t")]))
        assert [r["reason"] for r in told.rejects] == ([] if known else ["bad_json"])


def test_whole_numbers_are_never_rounded(shard: Callable[..., str], good: Callable[..., list], tmp_path: Path) -> None:
    columns = [{"id": 2**53 + 1, "huge": 10**400, "n": 1}, {"id": 0.5, "huge": 1.5, "n": 2.5}]
    pool = build_pool(shard([m for i, extra in enumerate(columns) for m in good(i, **extra)]), tmp_path / "home")
    table = pq.ParquetFile(pool.samples_path).read()
    assert table["id"].to_pylist() == [str(2**53 + 1), "0.5"] and table["huge"][0].as_py() == "1" + "0" * 400
    assert table["n"].to_pylist() == [1.0, 2.5]
