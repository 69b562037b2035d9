"""Pools: where tars are, what lies beside them, how samples are named, what their pictures are."""

from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from testing.field_case import Ended, Judge, Place, case, told, works
from testing.field_pool import picture, tar_of

JPG = picture(Image.new("RGB", (20, 20), (200, 30, 40)), "JPEG")


def chosen(count: int) -> Judge:
    """The subset file has so many records."""

    def judge(place: Place, ended: Ended) -> str:
        found = len(np.load(place.directory / "all.npy"))
        return "" if found == count else f"{found} samples instead of {count}"

    return judge


def every_sample(*pool: object) -> list[str]:
    """The command that indexes a pool and writes all its samples."""
    return ["subset", "no_filter", "--pool", *map(str, pool), "--out", "all.npy"]


def one_sample(place: Place, key: str, record: object = None, image: bytes = JPG, text: bytes = b"a coat") -> str:
    """A folder of one tar with 99 good samples and one that is asked about."""
    members = [(f"good{i:03d}.{end}", data) for i in range(99) for end, data in _good(i)]
    members += [(f"{key}.jpg", image), (f"{key}.txt", text)]
    if record is not None:
        members.append((f"{key}.json", record if isinstance(record, bytes) else json.dumps(record).encode()))
    place.file("one/00000.tar", tar_of(members))
    return str(place.directory / "one")


def _good(number: int) -> list[tuple[str, bytes]]:
    pixels = np.full((9, 9, 3), number, np.uint8)
    return [("jpg", picture(Image.fromarray(pixels), "JPEG")), ("txt", f"caption {number}".encode())]


@case("B", works(also=chosen(48)))
def two_folders_with_equal_tar_names(p: Place) -> list[str]:
    crawl = p.field.directory / "crawl"
    (crawl / "part-a" / "00001.tar").unlink()
    return every_sample(crawl / "*" / "*.tar")


@case("D", works(also=chosen(24)))
def a_hubs_cache_of_links(p: Place) -> list[str]:
    return every_sample(p.field.directory / "hub" / "snapshots" / "main")


@case("D", works(also=chosen(24)))
def a_linked_folder(p: Place) -> list[str]:
    (p.directory / "linked").symlink_to(p.field.directory / "hub" / "snapshots" / "main")
    return every_sample("linked")


@case("D", told(r"00009\.tar"), works(r"00009\.tar"))
def a_dangling_link(p: Place) -> list[str]:
    folder = p.field.directory / "hub" / "snapshots" / "main"
    (folder / "00009.tar").symlink_to("../../blobs/gone")
    return every_sample(folder)


@case("F", works(also=chosen(48)), told(r"::"))
def two_tars_in_one_string(p: Place) -> list[str]:
    crawl = p.field.directory / "crawl"
    return every_sample(f"{crawl}/part-a/00000.tar::{crawl}/part-b/00000.tar")


@case("G", told(r"reject"), works(also=chosen(100)))
def dotted_keys(p: Place) -> list[str]:
    members = [(f"img.{i:05d}.{end}", data) for i in range(100) for end, data in _good(i)]
    p.file("dotted/00000.tar", tar_of(members))
    return every_sample("dotted")


@case("H", works(r"00002\.tar\.gz"), told(r"00002\.tar\.gz"))
def a_packed_tar_beside(p: Place) -> list[str]:
    return every_sample(p.field.directory / "crawl" / "part-a" / ".." / "part-c") if _only_good(p) else []


def _only_good(p: Place) -> bool:
    folder = p.field.directory / "crawl" / "part-c"
    folder.mkdir()
    shutil.copy(p.tar, folder)
    shutil.copy(p.tar.parent / "00002.tar.gz", folder)
    return True


@case("H", works(r"B\.TAR"), told(r"B\.TAR"))
def a_tar_in_capitals_beside(p: Place) -> list[str]:
    shutil.copytree(p.tar.parents[1] / "part-b", p.directory / "caps")
    p.file("caps/B.TAR", tar_of([("x.jpg", JPG), ("x.txt", b"a coat")]))
    return every_sample("caps")


@case("H", told(r"a\.tgz"))
def nothing_but_a_packed_tar(p: Place) -> list[str]:
    p.file("packed/a.tgz", b"\x1f\x8b")
    return every_sample("packed")


@case("AD", works(also=chosen(24)))
def a_folder_with_brackets(p: Place) -> list[str]:
    folder = p.directory / "pool [v2]"
    folder.mkdir()
    shutil.copy(p.tar, folder)
    return every_sample("pool [v2]")


@case("AD", told(r"\{"))
def braces_that_do_not_close(p: Place) -> list[str]:
    return every_sample("shards/{00000..00001.tar")


@case("AD", told(r"damaged|-1"))
def fewer_than_no_damaged_shards(p: Place) -> list[str]:
    return ["reshard", str(p.tar.parent), "--out", "out", "--max-damaged-shards", "-1"]


@case("V", told(r"nshards"), works(r"nshards"))
def fewer_shards_stated_than_there_are(p: Place) -> list[str]:
    (p.clothes / "test" / "nshards.txt").write_text("1\n")
    return ["curate", p.catalog()]


@case("I", works(also=chosen(100)))
def numbers_that_no_column_holds(p: Place) -> list[str]:
    return every_sample(one_sample(p, "x", {"big": 10**30, "deep": {"a": [1, {"b": None}]}, "mixed": [1, "a"]}))


@case("I", works(also=chosen(100)))
def a_nan_in_the_json(p: Place) -> list[str]:
    return every_sample(one_sample(p, "x", b'{"score": NaN, "other": Infinity}'))


@case("A", works(also=chosen(100)))
def keys_with_every_name_of_ours(p: Place) -> list[str]:
    names = ("run", "round", "shard", "key", "image_offset", "text", "split", "position", "", "a.b", 'q"', "g", "G")
    return every_sample(one_sample(p, "x", {name: 1 for name in names}))


@case("U", works(also=chosen(100)))
def a_picture_of_sixteen_bits(p: Place) -> list[str]:
    ramp = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    return every_sample(one_sample(p, "x", image=buffer.getvalue()))


@case("N", told(r"uid"), works())
def metadata_with_whole_numbers_for_uids(p: Place) -> list[str]:
    pq.write_table(pa.table({"uid": [1, 2], "text": ["a", "b"]}), p.file("meta/a.parquet", b""))
    return ["subset", "no_filter", "--metadata", "meta/a.parquet", "--out", "all.npy"]


@case("N", told(r"a\.parquet"))
def metadata_that_is_cut(p: Place) -> list[str]:
    path = p.file("a.parquet", b"")
    pq.write_table(pa.table({"uid": ["0" * 32], "text": ["a"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    return ["subset", "no_filter", "--metadata", "a.parquet", "--out", "all.npy"]


@case("N", told(r"uid|null"))
def metadata_with_a_null_uid(p: Place) -> list[str]:
    pq.write_table(pa.table({"uid": pa.array([None, "0" * 32]), "text": ["a", "b"]}), p.file("a.parquet", b""))
    return ["subset", "no_filter", "--metadata", "a.parquet", "--out", "all.npy"]


@case("F", told(r"foo://"))
def an_address_of_no_known_kind(p: Place) -> list[str]:
    return every_sample("foo://bucket/00000.tar")


@case("F", told(r"1,000,000"))
def braces_for_more_names_than_there_can_be(p: Place) -> list[str]:
    return every_sample("shards/{0..99999999999}.tar")


@case("F", told(r"zero byte"))
def a_zero_byte_in_a_name(p: Place) -> list[str]:
    return every_sample("shards\0/00000.tar")


@case("H", works(r"b\.tar", also=chosen(24)))
def a_folder_that_is_called_like_a_tar(p: Place) -> list[str]:
    p.file("mixed/a.tar", p.tar.read_bytes())
    (p.directory / "mixed" / "b.tar").mkdir()
    return every_sample("mixed")


@case("H", told(r"a\.tar"))
def a_pipe_that_is_called_like_a_tar(p: Place) -> list[str]:
    (p.directory / "pipes").mkdir()
    os.mkfifo(p.directory / "pipes" / "a.tar")
    return every_sample("pipes")


@case("H", told(r"Git LFS pointer"))
def a_pointer_instead_of_a_tar(p: Place) -> list[str]:
    p.file("z/a.tar", b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n")
    return every_sample("z")


@case("H", told(r"page of HTML"))
def a_page_instead_of_a_tar(p: Place) -> list[str]:
    p.file("z/a.tar", b"<!DOCTYPE html><title>404</title>" * 40)
    return every_sample("z")


@case("U", works(r"1 rejected", r"not a JPEG, PNG or WebP", also=chosen(99)))
def a_picture_of_a_kind_that_is_not_read(p: Place) -> list[str]:
    return every_sample(one_sample(p, "x", image=picture(Image.new("P", (9, 9)), "GIF")))
