"""The defects of reference pools, tools and threads, each as the change that makes it. Importing this enters all."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.export.exports import verify_datacomp
from tasks.subset.files import SubsetError
from tasks.tables.uids import to_words
from testing.datacomp_pool import Attempt, DatacompPool, Members, kill, picture
from testing.field_pool import tar_of
from testing.hostile_pool import Found, Harmless, Rejected, Stopped, defect, whole

Uids = set[str]


def first(pool: DatacompPool) -> Attempt:
    """The sample that most defects are planted in."""
    return pool.shards[pool.at][0]


def members_of(pool: DatacompPool, change: Callable[[dict[str, bytes]], Members]) -> Uids:
    """Give the first sample other members, made from those it has; it is then no longer good."""
    one = first(pool)
    one.members = change(dict(one.tar_members()))
    return {whole(one.uid)}


def in_json(pool: DatacompPool, **changes: Any) -> None:
    """Change entries of the first sample's json member; None removes one."""
    record = first(pool).record
    record.update(changes)
    for name in [name for name, value in changes.items() if value is None]:
        del record[name]


def read_tar(pool: DatacompPool) -> tuple[Members, dict[str, tuple[int, int]], int]:
    """A tar's members, the bytes [start, end) of each uid's sample in it, and the end of the last."""
    data = pool.tar(pool.at).read_bytes()
    members, spans, starts, end = Members(), dict[str, tuple[int, int]](), dict[str, int](), 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for entry in archive:
            body = archive.extractfile(entry).read()  # type: ignore[union-attr]
            members.append((entry.name, body))
            key, _, extension = entry.name.partition(".")
            starts.setdefault(key, entry.offset)
            end = entry.offset_data + -(-entry.size // 512) * 512
            if extension == "json":
                spans[whole(json.loads(body)["uid"])] = (starts[key], end + 1024)  # its txt: a header and a block
    return members, spans, end


def cut(path: Path, keep: float | int) -> None:
    """Keep the first share, or number of bytes, of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])


# --- Section 1: what lies on the disk -------------------------------------------------------------------------------


@defect("1", Found("dead_link"))
def link_died(pool: DatacompPool) -> None:
    kill(first(pool))


@defect("1", Found("dead_link"))
def picture_too_small_to_resize(pool: DatacompPool) -> None:
    kill(first(pool), "failed_to_resize", "image too small")


@defect("1", Rejected("empty_tar"))
def shard_without_a_success(pool: DatacompPool) -> None:
    for one in pool.shards[pool.at]:
        kill(one)


@defect("1", Found("sha256_drift"))
def content_drifted(pool: DatacompPool) -> None:
    in_json(pool, sha256="ab" * 32)


@defect("1", Found("missing_stats"), after=True)
def shard_not_finished(pool: DatacompPool) -> None:
    pool.beside(pool.at, "_stats.json").unlink()


@defect("1", Found("unreadable_stats"), after=True)
def stats_cut(pool: DatacompPool) -> None:
    cut(pool.beside(pool.at, "_stats.json"), 0.5)


@defect("1", Found("unreadable_stats"), after=True)
def stats_without_successes(pool: DatacompPool) -> None:
    pool.beside(pool.at, "_stats.json").write_text('{"count": 5}')


@defect("1", Found("stats_mismatch"), after=True)
def stats_of_another_download(pool: DatacompPool) -> None:
    pool.beside(pool.at, "_stats.json").write_text('{"count": 5, "successes": 1}')


@defect("1", Found("missing_table"), after=True)
def table_missing(pool: DatacompPool) -> None:
    pool.beside(pool.at, ".parquet").unlink()


@defect("1", Found("unreadable_table"), after=True)
def table_cut(pool: DatacompPool) -> None:
    cut(pool.beside(pool.at, ".parquet"), 0.7)


@defect("1", Found("not_in_tar"), after=True)
def table_of_another_download(pool: DatacompPool) -> None:
    for one in pool.shards[pool.at]:
        one.status = "success"
    tar = pool.tar(pool.at).read_bytes()
    pool.write_shard(pool.at)
    pool.tar(pool.at).write_bytes(tar)


@defect("1", Harmless(), after=True, wide=True)
def table_without_uids(pool: DatacompPool) -> None:
    for number in range(3):
        path = pool.beside(number, ".parquet")
        pq.write_table(pq.read_table(path).drop_columns(["uid"]), path)


@defect("1", Harmless(), after=True, wide=True)
def no_tables_and_no_stats(pool: DatacompPool) -> None:
    for number in range(3):
        pool.beside(number, ".parquet").unlink()
        pool.beside(number, "_stats.json").unlink()


@defect("1", Harmless(), after=True, wide=True)
def no_metadata(pool: DatacompPool) -> None:
    shutil.rmtree(pool.directory / "metadata")


@defect("1", Harmless(), after=True, wide=True)
def no_npz(pool: DatacompPool) -> None:
    pool.metadata().with_suffix(".npz").unlink()


@defect("1", Harmless(), after=True, wide=True)
def npz_of_single_precision(pool: DatacompPool) -> None:
    pool.write_npz(np.float32)


@defect("1", Found("missing_npz"), after=True, wide=True)
def npz_of_one_file_missing(pool: DatacompPool) -> None:
    table = pool.metadata_table()
    pool.write_metadata(table.slice(0, 6))
    pool.write_npz(np.float16, 6)
    pq.write_table(table.slice(6), pool.metadata().with_name("f" * 32 + ".parquet"))


@defect("1", Found("unreadable_npz"), after=True, wide=True)
def npz_cut(pool: DatacompPool) -> None:
    cut(pool.metadata().with_suffix(".npz"), 0.5)


@defect("1", Found("npz_mismatch"), after=True, wide=True)
def npz_of_fewer_rows(pool: DatacompPool) -> None:
    pool.write_npz(np.float16, 5)


@defect("1", Stopped("no sound Parquet file", "unreadable_metadata"), after=True, wide=True)
def metadata_cut(pool: DatacompPool) -> None:
    cut(pool.metadata(), 0.8)


@defect("1", Stopped("no column uid", "unreadable_metadata"), after=True, wide=True)
def metadata_without_uid(pool: DatacompPool) -> None:
    pool.write_metadata(pool.metadata_table().drop_columns(["uid"]))


@defect("1", Stopped("is not a uid", "unreadable_metadata"), after=True, wide=True)
def metadata_with_a_wrong_uid(pool: DatacompPool) -> None:
    table = pool.metadata_table()
    pool.write_metadata(table.set_column(0, "uid", pa.array(["no uid", *table["uid"].to_pylist()[1:]])))


@defect("1", Found("no_metadata", 7), after=True, wide=True)
def metadata_half(pool: DatacompPool) -> None:
    pool.write_metadata(pool.metadata_table().slice(0, 5))


@defect("1", Found("metadata_duplicate"), after=True, wide=True)
def metadata_row_twice(pool: DatacompPool) -> None:
    table = pool.metadata_table()
    pool.write_metadata(pa.concat_tables([table, table.slice(3, 1)]))


@defect("1", Stopped("not known which is right", "metadata_duplicate"), after=True, wide=True)
def metadata_rows_disagree(pool: DatacompPool) -> None:
    table = pool.metadata_table()
    other = table.slice(2, 1).set_column(5, "clip_b32_similarity_score", pa.array([0.9], pa.float32()))
    pool.write_metadata(pa.concat_tables([table, other]))


@defect("1", Harmless(), after=True, wide=True)
def metadata_in_other_names(pool: DatacompPool) -> None:
    names = {
        "clip_b32_similarity_score": "oai-clip-vit-b32-score",
        "clip_l14_similarity_score": "oai-clip-vit-l14-score",
    }
    names |= {"face_bboxes": "face-boxes", "text": "caption"}
    table = pool.metadata_table()
    pool.write_metadata(table.rename_columns([names.get(name, name) for name in table.column_names]))


@defect("1", Harmless(), after=True, wide=True)
def scores_that_are_no_numbers(pool: DatacompPool) -> None:
    table = pool.metadata_table()
    scores = table["clip_b32_similarity_score"].to_numpy().copy()
    scores[2] = np.nan
    pool.write_metadata(table.set_column(5, "clip_b32_similarity_score", pa.array(scores)))


@defect("1", Harmless())
def uids_without_their_zeros(pool: DatacompPool) -> None:
    for one in pool.shards[pool.at]:
        one.uid = one.record["uid"] = one.uid.lstrip("0")


@defect("1", Harmless())
def uids_in_capitals(pool: DatacompPool) -> None:
    for one in pool.shards[pool.at]:
        one.record["uid"] = one.uid.upper()


@defect("1", Harmless())
def captions_called_text(pool: DatacompPool) -> None:
    for one in pool.shards[pool.at]:
        one.record["text"] = one.record.pop("caption")


@defect("1", Harmless())
def json_with_nan_and_huge_numbers(pool: DatacompPool) -> None:
    in_json(pool, exif=float("nan"), original_width=2**70)


@defect("1", Harmless())
def samples_without_faces(pool: DatacompPool) -> None:
    in_json(pool, face_bboxes=[])


@defect("1", Harmless(), after=True, wide=True)
def folder_of_unfinished_work(pool: DatacompPool) -> None:
    (pool.directory / "shards" / "_tmp").mkdir()
    (pool.directory / "shards" / "_tmp" / "0.feather").write_bytes(b"ARROW1")


# --- Section 2: what makes the resharder lose samples ---------------------------------------------------------------


@defect("2", Rejected("duplicate_uid"))
def uid_in_two_shards(pool: DatacompPool) -> None:
    pool.shards[pool.at + 1].insert(0, copy.deepcopy(first(pool)))


@defect("2", Rejected("duplicate_uid"))
def uid_with_two_pictures(pool: DatacompPool) -> None:
    other = copy.deepcopy(first(pool))
    other.image = picture(99)
    pool.shards[pool.at + 1].insert(0, other)


@defect("2", Found("gap"), after=True)
def gap_in_the_numbers(pool: DatacompPool) -> Uids:
    uids = {whole(one.uid) for one in pool.shards[pool.at]}
    for path in (pool.tar(pool.at), pool.beside(pool.at, ".parquet"), pool.beside(pool.at, "_stats.json")):
        path.unlink()
    return uids


@defect("2", Found("missing_tar"), after=True)
def tar_missing(pool: DatacompPool) -> Uids:
    pool.tar(pool.at).unlink()
    return {whole(one.uid) for one in pool.shards[pool.at]}


@defect("2", Rejected("truncated_tar"), after=True)
def tar_cut(pool: DatacompPool) -> Uids:
    _, spans, end = read_tar(pool)
    cut(pool.tar(pool.at), int(end * 0.6))
    return {uid for uid, (_, stop) in spans.items() if stop > int(end * 0.6)}


@defect("2", Rejected("truncated_tar"), after=True)
def tar_without_its_end(pool: DatacompPool) -> None:
    cut(pool.tar(pool.at), read_tar(pool)[2])


@defect("2", Rejected("truncated_tar"), after=True)
def tar_empty(pool: DatacompPool) -> Uids:
    pool.tar(pool.at).write_bytes(b"")
    return {whole(one.uid) for one in pool.shards[pool.at]}


@defect("2", Rejected("corrupt_tar"), after=True)
def header_damaged(pool: DatacompPool) -> Uids:
    _, spans, _ = read_tar(pool)
    start = sorted(spans.values())[2][0]
    data = bytearray(pool.tar(pool.at).read_bytes())
    data[start + 5] ^= 7
    pool.tar(pool.at).write_bytes(data)
    return {uid for uid, (at, _) in spans.items() if at >= start}


@defect("2", Rejected("corrupt_tar"), after=True)
def hole_of_zeros(pool: DatacompPool) -> Uids:
    _, spans, _ = read_tar(pool)
    start = sorted(spans.values())[1][0]
    data = bytearray(pool.tar(pool.at).read_bytes())
    data[start : start + 1024] = bytes(1024)
    pool.tar(pool.at).write_bytes(data)
    return {uid for uid, (at, _) in spans.items() if at >= start}


@defect("2", Rejected("missing_uid"))
def json_without_uid(pool: DatacompPool) -> Uids:
    in_json(pool, uid=None)
    return {whole(first(pool).uid)}


@defect("2", Rejected("missing_uid", 4))
def shard_without_uids(pool: DatacompPool) -> Uids:
    for one in pool.shards[pool.at]:
        del one.record["uid"]
    return {whole(one.uid) for one in pool.shards[pool.at]}


# --- Section 6: what people complain of -----------------------------------------------------------------------------


@defect("6", Harmless(), after=True, wide=True)
def keys_of_another_download(pool: DatacompPool) -> None:
    flat = pool.attempts
    random.Random(5).shuffle(flat)
    pool.shards = [flat[:3], flat[3:9], flat[9:]]
    for number in range(3):
        pool.write_shard(number)


@defect("6", Rejected("interleaved_members", 2), after=True)
def members_interleaved(pool: DatacompPool) -> Uids:
    members, spans, _ = read_tar(pool)
    mixed = [members[i] for i in (0, 3, 1, 4, 2, 5)] + members[6:]
    pool.tar(pool.at).write_bytes(tar_of(mixed))
    return set(sorted(spans, key=lambda uid: spans[uid])[:2])


@defect("6", Rejected("duplicate_member"), after=True)
def sample_twice_in_its_tar(pool: DatacompPool) -> Uids:
    members, spans, _ = read_tar(pool)
    pool.tar(pool.at).write_bytes(tar_of([*members, *members[:3]]))
    return {min(spans, key=lambda uid: spans[uid])}


@defect("6", Rejected("missing_image"))
def image_missing(pool: DatacompPool) -> Uids:
    return members_of(pool, lambda m: [(".json", m[".json"]), (".txt", m[".txt"])])


@defect("6", Rejected("missing_text"))
def text_missing(pool: DatacompPool) -> Uids:
    return members_of(pool, lambda m: [(".jpg", m[".jpg"]), (".json", m[".json"])])


@defect("6", Rejected("missing_uid"))
def json_missing(pool: DatacompPool) -> Uids:
    return members_of(pool, lambda m: [(".jpg", m[".jpg"]), (".txt", m[".txt"])])


@defect("6", Rejected("duplicate_member"))
def two_pictures_of_one_name(pool: DatacompPool) -> Uids:
    return members_of(
        pool, lambda m: [(".jpg", m[".jpg"]), (".jpg", m[".jpg"]), (".json", m[".json"]), (".txt", m[".txt"])]
    )


def _picture(data: bytes) -> Callable[[DatacompPool], Uids]:
    def plant(pool: DatacompPool) -> Uids:
        return members_of(pool, lambda m: [(".jpg", data), (".json", m[".json"]), (".txt", m[".txt"])])

    return plant


def giant() -> bytes:
    """A PNG that claims 30,000 by 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


for _name, _data in {
    "image_is_a_web_page": b"<html><body>403 Forbidden</body></html>",
    "image_of_no_bytes": b"",
    "image_cut": picture(1, size=(60, 60))[:1500],
    "image_is_a_gif": picture(1, "GIF"),
    "image_is_a_bomb": giant(),
}.items():
    _plant = _picture(_data)
    _plant.__name__ = _name
    defect("6", Rejected("undecodable_image"))(_plant)


@defect("6", Found("duplicate_image"))
def placeholder_picture(pool: DatacompPool) -> None:
    pool.shards[pool.at + 1][0].image = first(pool).image


@defect("6", Harmless())
def picture_is_webp(pool: DatacompPool) -> None:
    first(pool).image, first(pool).extension = picture(7, "WEBP"), "webp"


@defect("6", Harmless())
def picture_is_png_by_another_name(pool: DatacompPool) -> None:
    first(pool).image, first(pool).extension = picture(7, "PNG"), "JPG"


@defect("6", Rejected("bad_text"))
def caption_in_another_encoding(pool: DatacompPool) -> Uids:
    return members_of(pool, lambda m: [*[*m.items()][:2], (".txt", "\xfc".encode("latin-1"))])


@defect("6", Rejected("empty_text"))
def caption_blank(pool: DatacompPool) -> Uids:
    return members_of(pool, lambda m: [*[*m.items()][:2], (".txt", b" \n\t")])


@defect("6", Found("caption_differs"))
def caption_of_another(pool: DatacompPool) -> None:
    in_json(pool, caption="something else")


def _json(data: bytes) -> Callable[[DatacompPool], Uids]:
    def plant(pool: DatacompPool) -> Uids:
        return members_of(pool, lambda m: [(".jpg", m[".jpg"]), (".json", data), (".txt", m[".txt"])])

    return plant


for _name, _data, _reason in [
    ("json_cut", b'{"uid": "00", "ca', "bad_json"),
    ("json_is_a_list", b'[{"uid": "00"}]', "bad_json"),
    ("json_too_deep", b'{"uid": "00", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad_json"),
    ("json_of_no_bytes", b"", "bad_json"),
    ("uid_not_hex", b'{"uid": "not a uid"}', "bad_uid"),
    ("uid_too_long", b'{"uid": "%s"}' % (b"a" * 33), "bad_uid"),
    ("uid_a_number", b'{"uid": 12}', "bad_uid"),
]:
    _plant = _json(_data)
    _plant.__name__ = _name
    defect("6", Rejected(_reason))(_plant)


@defect("6", Rejected("torn_member"), after=True)
def caption_cut_in_its_header(pool: DatacompPool) -> Uids:
    _, spans, _ = read_tar(pool)
    data = bytearray(pool.tar(pool.at).read_bytes())
    uid, (_, stop) = min(spans.items(), key=lambda item: item[1])
    header = tarfile.TarInfo.frombuf(data[stop - 1024 : stop - 512], "utf-8", "strict")
    header.size -= 5
    data[stop - 1024 : stop - 512] = header.tobuf(tarfile.USTAR_FORMAT)
    pool.tar(pool.at).write_bytes(data)
    return {uid}


@defect("6", Rejected("stray_member"), after=True)
def file_that_belongs_to_nobody(pool: DatacompPool) -> None:
    members, _, _ = read_tar(pool)
    pool.tar(pool.at).write_bytes(tar_of([("README", b"hello"), *members]))


@defect("6", Harmless(), after=True)
def names_that_climb_out(pool: DatacompPool) -> None:
    members, _, _ = read_tar(pool)
    pool.tar(pool.at).write_bytes(tar_of([(f"../../{name}", data) for name, data in members]))


@defect("6", Rejected("missing_image"), after=True)
def image_is_a_link(pool: DatacompPool) -> Uids:
    members, spans, _ = read_tar(pool)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for i, (name, data) in enumerate(members):
            entry = tarfile.TarInfo(name)
            entry.size = len(data) if i else 0
            entry.type, entry.linkname = (tarfile.REGTYPE, "") if i else (tarfile.SYMTYPE, "/etc/passwd")
            archive.addfile(entry, io.BytesIO(data if i else b""))
    pool.tar(pool.at).write_bytes(buffer.getvalue())
    return {min(spans, key=lambda uid: spans[uid])}


@defect("6", Rejected("corrupt_tar"), after=True)
def tar_compressed(pool: DatacompPool) -> Uids:
    pool.tar(pool.at).write_bytes(gzip.compress(pool.tar(pool.at).read_bytes()))
    return {whole(one.uid) for one in pool.shards[pool.at]}


@defect("6", Rejected("corrupt_tar"), after=True)
def two_tars_in_one(pool: DatacompPool) -> None:
    data = pool.tar(pool.at).read_bytes()
    pool.tar(pool.at).write_bytes(data + data)


@defect("6", Rejected("corrupt_tar"), after=True)
def error_page_instead_of_a_tar(pool: DatacompPool) -> Uids:
    pool.tar(pool.at).write_bytes(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")
    return {whole(one.uid) for one in pool.shards[pool.at]}


# --- Section 2, subset files: what the resharder swallows -----------------------------------------------------------


def _saved(change: Callable[[Any], Any]) -> Callable[[Path, list[str]], None]:
    return lambda path, uids: np.save(path, change(to_words(sorted(uids))))


SUBSETS: dict[str, tuple[Callable[[Path, list[str]], object], str]] = {
    "subset_not_sorted": (_saved(lambda words: words[::-1]), "not sorted"),
    "subset_of_pairs": (_saved(lambda words: words.view("<u8").reshape(-1, 2)), "expected one-dimensional records"),
    "subset_of_another_pool": (lambda path, _: np.save(path, to_words(["1" * 32, "2" * 32])), "are not among the pool"),
    "subset_with_a_dead_link": (lambda path, uids: np.save(path, to_words(sorted([*uids, "a" * 32]))), "are not among"),
    "subset_of_nobody": (_saved(lambda words: words[:0]), "no record"),
    "subset_is_text": (lambda path, uids: path.write_text("\n".join(uids)), "not a numpy file"),
    "subset_with_python_in_it": (lambda path, uids: np.save(path, np.array(uids, object)), "not a numpy file"),
}
"""How to write a subset file of a pool's uids that is wrong, and what its refusal says."""


def judge_subset(name: str, scratch: Path) -> str:
    """What is silent about a wrong subset file; empty: it is refused in the right words."""
    write, words = SUBSETS[name]
    path, uids = scratch / "subset.npy", [f"{number:032x}" for number in range(5, 60, 7)]
    write(path, uids)
    try:
        verify_datacomp(path, uids)
    except SubsetError as error:
        return "" if words in str(error) else f"refused with {error}"
    return "taken"
