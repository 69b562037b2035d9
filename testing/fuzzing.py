"""Fuzzing what comes from outside: tars, Parquet, JSON and numpy files, mutated at seeded random, each kind with its
rule.

`fuzz(target, seed, scratch)` makes one case and says how it ended: `intact` (all is as it was), `refused` (an error
of ours, or a reject or finding that says so), or raises: `SilentLoss` when something is gone or other than it was and
nobody says so, anything else when the code under test broke. A case is a function of its target and seed.

What no reader can know is not asked: a changed picture or caption of the same length in a member that is otherwise
whole, values in a Parquet page (nobody writes check sums there). Footers, headers, lengths and structure are what is
mutated.
"""

from __future__ import annotations

import functools
import io
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.census.sidecars import npz_rows, read_attempts, read_stats
from tasks.evaluation.eval_samples import EvalSetError
from tasks.evaluation.eval_sets import open_eval_set
from tasks.export.exports import verify_datacomp
from tasks.files.remote_files import Reader
from tasks.files.source_patterns import SourceError
from tasks.files.untrusted_parquet import Unreadable
from tasks.pool.metadata import MetadataError, metadata_rows
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions, PoolError
from tasks.pool.shards import index_shard
from tasks.subset.files import SubsetError
from tasks.tables.uids import to_words, uid_array, uid_bytes
from testing.datacomp_pool import DatacompPool, attempt, key_of, make_pool
from testing.eval_set_files import write_set

INTACT, REFUSED = "intact", "refused"
BLOCK = 512
# Offset and length of the fields of a tar header that mean something.
FIELDS = {
    "name": (0, 100), "mode": (100, 8), "owner": (108, 16), "size": (124, 12), "mtime": (136, 12), "sum": (148, 8),
    "type": (156, 1), "link": (157, 100), "magic": (257, 8), "prefix": (345, 155),
}  # fmt: skip


class SilentLoss(AssertionError):
    """Something is gone, or other than it was, and nobody said so."""


def fuzz(target: str, seed: int, scratch: Path) -> str:
    """Run one case in a directory of its own use; see above."""
    return TARGETS[target](random.Random(f"{target} {seed}"), scratch)


def fuzz_tar(rng: random.Random, scratch: Path) -> str:
    """A shard whose headers or structure are damaged; its data are not."""
    data, expected = _tar(rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
    path = scratch / "fuzzed.tar"
    path.write_bytes(_mutate_tar(rng, data))
    index = index_shard(str(path))
    raw = path.read_bytes()
    found = {}
    # Without a uid of its own a sample is refused where other shards of a pool name theirs.
    for row in (row for row in index.rows if row["named_uid"]):
        image = raw[row["image_offset"] : row["image_offset"] + row["image_size"]]
        if row["uid"] in found or row["uid"] not in expected:
            raise SilentLoss(f"row with uid {row['uid']} twice, or never written")
        found[row["uid"]] = (image, row["text"])
    # A picture with padding behind it is the same picture.
    wrong = [u for u, (image, text) in found.items() if (image.rstrip(b"\0"), text) != expected[u]]
    if wrong:
        raise SilentLoss(f"samples {wrong} are not what was written")
    if len(found) < len(expected) and not index.rejects:
        raise SilentLoss(f"{len(expected) - len(found)} samples are gone without a reject")
    return REFUSED if index.rejects else INTACT


def fuzz_metadata(rng: random.Random, scratch: Path) -> str:
    """A metadata file whose footer is damaged, or that is cut."""
    data, uids = _metadata()
    path = scratch / "fuzzed.parquet"
    path.write_bytes(_mutate_footer(rng, data))
    try:
        found = [at for _, at in metadata_rows([str(path)], Reader(), uid_bytes(uid_array(sorted(uids))), [])]
    except MetadataError:
        return REFUSED
    if missing := set(range(len(uids))) - {int(one) for at in found for one in at}:
        raise SilentLoss(f"{len(missing)} of {len(uids)} samples lost their metadata")
    return INTACT


def fuzz_table(rng: random.Random, scratch: Path) -> str:
    """A shard's table whose footer is damaged, or that is cut."""
    data, statuses = _table()
    path = scratch / "fuzzed.parquet"
    path.write_bytes(_mutate_footer(rng, data))
    try:
        attempts = read_attempts(str(path), "0.tar", Reader())
    except Unreadable:
        return REFUSED
    if attempts["status"].to_pylist() != statuses:
        raise SilentLoss(f"the statuses are {attempts['status'].to_pylist()}")
    return INTACT


def fuzz_json(rng: random.Random, scratch: Path) -> str:
    """A stats file with any bytes changed: its count, if it is read at all, is one that stands in it."""
    path = scratch / "fuzzed.json"
    data = _mutate_bytes(rng, b'{"count": 5, "successes": 4, "duration": 1.5, "status_dict": {"x": 1}}')
    path.write_bytes(data)
    try:
        counters = read_stats(str(path), Reader())
    except Unreadable:
        return REFUSED
    if str(counters["successes"]).encode() not in data:
        raise SilentLoss(f"{counters} from {data!r}")
    return INTACT if counters["successes"] == 4 else REFUSED


def fuzz_sample_json(rng: random.Random, scratch: Path) -> str:
    """A sample's json member with any bytes changed: a reject, or the sample with its picture and caption."""
    members = attempt(3).tar_members()
    members[1] = (".json", _mutate_bytes(rng, members[1][1]))
    others = [(f"{key_of(0, i)}{end}", data) for i in (1, 2) for end, data in attempt(i).tar_members()]
    path = scratch / "fuzzed.tar"
    path.write_bytes(
        _written([*others, *((f"{key_of(0, 3)}{end}", data) for end, data in members)], tarfile.USTAR_FORMAT)
    )
    index = index_shard(str(path))
    if len(index.rows) + len(index.rejects) != 3 or len(index.rows) < 2:
        raise SilentLoss(f"{len(index.rows)} rows and {len(index.rejects)} rejects of three samples")
    if len(index.rows) == 3 and index.rows[2]["text"] != attempt(3).caption:
        raise SilentLoss("another caption")
    return REFUSED if index.rejects else INTACT


def fuzz_npy(rng: random.Random, scratch: Path) -> str:
    """A subset file with any bytes changed: refused, or the very records."""
    uids = [f"{number:032x}" for number in range(3, 4000, 97)]
    buffer = io.BytesIO()
    np.save(buffer, to_words(uids))
    path = scratch / "fuzzed.npy"
    data = buffer.getvalue()
    # Half of the cases in the header, where the file says what it is.
    mutated = _mutate_bytes(rng, data[:128]) + data[128:] if rng.random() < 0.5 else _mutate_bytes(rng, data)
    path.write_bytes(mutated)
    try:
        report = verify_datacomp(path, uids)
    except SubsetError:
        return REFUSED
    found = np.load(path, allow_pickle=False)
    if report.records != len(uids) or found.tobytes() != to_words(uids).tobytes():
        raise SilentLoss(f"{report} of {len(uids)} records")
    return INTACT


def fuzz_npz(rng: random.Random, scratch: Path) -> str:
    """An npz with any bytes changed: unreadable, or the rows of its arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, b32_img=np.ones((5, 8), np.float16), dedup=np.ones((5, 4), np.float16))
    path = scratch / "fuzzed.npz"
    path.write_bytes(_mutate_bytes(rng, buffer.getvalue()))
    try:
        rows = npz_rows(str(path), Reader())
    except Unreadable:
        return REFUSED
    # An array that is gone or renamed is a finding of the census, which knows their names.
    return INTACT if rows == {"b32_img": 5, "dedup": 5} else REFUSED


def fuzz_eval_set(rng: random.Random, scratch: Path) -> str:
    """An evaluation set whose tar's headers or structure are damaged: read whole and as it was, or not at all."""
    images = [attempt(number).image or b"" for number in range(4)]
    directory = write_set(scratch / "wds_fuzzed_test", [], ["a", "b"])
    members = [
        (f"s{i:07d}{end}", data) for i, own in enumerate(images) for end, data in ((".jpg", own), (".cls", b"1"))
    ]
    (directory / "test" / "nshards.txt").write_text("1")
    (directory / "test" / "0.tar").write_bytes(_mutate_tar(rng, _written(members, tarfile.USTAR_FORMAT)))
    try:
        found = list(open_eval_set(str(directory)).samples())
    except EvalSetError:
        return REFUSED
    if [(one.images[0].rstrip(b"\0"), one.label) for one in found] != [(image.rstrip(b"\0"), 1) for image in images]:
        raise SilentLoss(f"{len(found)} of {len(images)} samples, or others")
    return INTACT


def fuzz_pool_files(rng: random.Random, scratch: Path) -> str:
    """A pool's own records and parts, changed between two halves of its build."""
    pool = _built(scratch)
    home = scratch / "home"
    reference = build_pool(str(pool.directory), scratch / "reference", ANY).samples_digest
    from tasks.pool.pools import plan_pool, write_or_index_unit

    plan = plan_pool(str(pool.directory), home, ANY)
    for unit in plan.units:
        write_or_index_unit(unit)
    unit = rng.choice(plan.units)
    path = rng.choice([unit.marker, unit.part, plan.directory / "source.json"])
    path.write_bytes(_mutate_bytes(rng, path.read_bytes()))
    try:
        again = build_pool(str(pool.directory), home, ANY).samples_digest
    except (PoolError, SourceError):
        path.unlink()
        build_pool(str(pool.directory), home, ANY)  # what the message says helps
        return REFUSED
    finally:
        _clear(home)
    if again != reference:
        raise SilentLoss(f"another pool after {path.name} changed")
    return INTACT


ANY = BuildOptions(max_rejects=1.0, max_damaged_shards=9)
TARGETS: dict[str, Callable[[random.Random, Path], str]] = {
    "tar": fuzz_tar,
    "metadata": fuzz_metadata,
    "table": fuzz_table,
    "json": fuzz_json,
    "sample_json": fuzz_sample_json,
    "npy": fuzz_npy,
    "npz": fuzz_npz,
    "eval_set": fuzz_eval_set,
    "pool_files": fuzz_pool_files,
}
"""What is fuzzed."""


def _mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """A few random changes: bits, bytes, cuts, insertions, repeats, runs of one byte."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not made:
            break
        at, n = rng.randrange(len(made)), rng.choice((1, 2, 8, 40))
        kind = rng.randrange(6)
        if kind == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            made[at : at + n] = rng.randbytes(min(n, len(made) - at))
        elif kind == 2:
            del made[at:]
        elif kind == 3:
            made[at:at] = rng.randbytes(n)
        elif kind == 4:
            made[at:at] = made[at : at + n]
        else:
            made[at : at + n] = bytes([rng.choice((0, 255, 32, 48))]) * n
    return bytes(made)


def _mutate_footer(rng: random.Random, data: bytes) -> bytes:
    """Changes in a Parquet file's footer and its length, or a cut anywhere."""
    if rng.random() < 0.15:
        return data[: rng.randrange(len(data))]
    (length,) = struct.unpack("<I", data[-8:-4])
    start = len(data) - 8 - length
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(start, len(data))
        made[at] = rng.choice((made[at] ^ (1 << rng.randrange(8)), rng.randrange(256), 0, 255))
    return bytes(made)


def _mutate_tar(rng: random.Random, data: bytes) -> bytes:
    """Changes in headers (half of them with a right check sum), or blocks cut, dropped, doubled, swapped or emptied."""
    made = bytearray(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        heads = [member.offset_data - BLOCK for member in archive]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, kind = rng.choice(heads), rng.random()
        if kind < 0.6:
            start, length = FIELDS[rng.choice(list(FIELDS))]
            field = at + start + rng.randrange(length)
            made[field : field + 1] = rng.choice((rng.randbytes(1), b"0", b"7", b"\0", b" ", b"x", b"L", b".", b"/"))
            if rng.random() < 0.5:
                _seal(made, at)
        else:
            _move_blocks(rng, made, heads)
            break  # offsets are no longer what they were
    return bytes(made)


def _move_blocks(rng: random.Random, made: bytearray, heads: list[int]) -> None:
    """Cut anywhere, drop or insert any block, or empty or copy a header: no two samples exchange their data."""
    at = rng.randrange(len(made) // BLOCK) * BLOCK
    one, two = rng.choice(heads), rng.choice(heads)
    first, second = made[one : one + BLOCK], made[two : two + BLOCK]
    kind = rng.randrange(5)
    if kind == 0:
        del made[rng.randrange(len(made)) :]
    elif kind == 1:
        del made[at : at + BLOCK]
    elif kind == 2:
        made[at:at] = rng.choice((first, bytes(BLOCK), rng.randbytes(BLOCK)))
    elif kind == 3:
        made[one : one + BLOCK] = bytes(BLOCK)
    else:
        made[one : one + BLOCK] = second


def _seal(made: bytearray, at: int) -> None:
    """Give a header the check sum that fits it."""
    block = made[at : at + BLOCK]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    made[at + 148 : at + 156] = b"%06o\0 " % total


@functools.cache
def _tar(form: int) -> tuple[bytes, dict[str, tuple[bytes, str]]]:
    """A sound shard, and picture and caption of each uid in it."""
    samples = [attempt(number) for number in range(4)]
    members = [(f"{key_of(0, i)}{end}", data) for i, a in enumerate(samples) for end, data in a.tar_members()]
    expected = {a.uid: ((a.image or b"").rstrip(b"\0"), a.caption) for a in samples}
    return _written(members, form), expected


def _written(members: list[tuple[str, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members:
            # A name beyond ASCII, so that pax headers are there to be damaged too.
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.pax_headers = {"comment": "ü"} if form == tarfile.PAX_FORMAT else {}
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@functools.cache
def _metadata() -> tuple[bytes, list[str]]:
    table = make_pool(Path("unused"), shards=12).metadata_table()
    return _parquet(table, row_group_size=20), table["uid"].to_pylist()


@functools.cache
def _table() -> tuple[bytes, list[str]]:
    rows = [{"uid": a.uid, "key": str(i), "status": a.status} for i, a in enumerate(make_pool(Path("unused")).attempts)]
    return _parquet(pa.Table.from_pylist(rows)), [str(row["status"]) for row in rows]


def _parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


@functools.cache
def _built(scratch: Path) -> DatacompPool:
    pool = make_pool(scratch / "pool", shards=2, size=3)
    pool.write()
    return pool


def _clear(home: Path) -> None:
    import shutil

    shutil.rmtree(home)
