"""Exports: what DataComp's tools and any WebDataset trainer take, read back by numpy, pyarrow and webdataset
themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.exports import SubsetError, export_datacomp, export_parquet, verify_datacomp
from tasks.manifests import Manifest, read_manifest, write_manifest
from tasks.pool_records import BuildOptions
from tasks.pools import build_pool
from tasks.shard_exports import deal, export_webdataset
from tasks.uids import uid_bytes, uid_hex

ROOT = Path(__file__).parents[2]
COUNTS = [0, 3, 1, 2, 0, 1, 5, 1, 1, 2, 1, 3]


@pytest.fixture
def pool(
    shard: Callable[..., str], good: Callable[..., list], picture: Callable[..., bytes], tmp_path: Path
) -> Path:
    """The directory of a pool of 12 samples in two tars; sample 5 has no json, 6 a uid in another
    spelling."""

    def members(number: int) -> list[tuple[str, bytes]]:
        png, record, text = good(number, n=number)
        if number == 6:
            record = (record[0], record[1].upper().replace(b'"UID"', b'"uid"').replace(b'"N"', b'"n"'))
        return [png, text] if number == 5 else [png, record, text]

    paths = [
        shard([m for i in part for m in members(i)], f"{k}.tar")
        for k, part in enumerate((range(7), range(7, 12)))
    ]
    return build_pool(paths, tmp_path / "home").directory


@pytest.fixture
def manifest(pool: Path, tmp_path: Path) -> Path:
    uids = pq.ParquetFile(pool / "samples.parquet").read()["uid"]
    return write_manifest(tmp_path / "run", 1, uids, COUNTS, {"round": 1})


def bag(manifest: Path) -> Counter[str]:
    subset = read_manifest(manifest)
    return Counter(dict(zip(uid_hex(subset.uids), subset.counts.tolist(), strict=True)))


def test_datacomp_file(manifest: Path, pool: Path, tmp_path: Path) -> None:
    report = export_datacomp(manifest, tmp_path / "s.npy")
    records = np.load(tmp_path / "s.npy")
    assert records.dtype == np.dtype("u8,u8") and records.tolist() == sorted(records.tolist())
    assert Counter(f"{high:016x}{low:016x}" for high, low in records.tolist()) == bag(manifest)
    assert (report.records, report.distinct, report.most_copies) == (20, 10, 5)
    assert (
        verify_datacomp(tmp_path / "s.npy", pq.ParquetFile(pool / "samples.parquet").read()["uid"]) == report
    )
    export_datacomp(manifest, tmp_path / "again.npy")
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "s.npy").read_bytes()
    np.save(tmp_path / "numpy.npy", records)
    assert (tmp_path / "numpy.npy").read_bytes() == (tmp_path / "s.npy").read_bytes()


def test_the_verifier_refuses_what_the_resharder_would_swallow(
    tmp_path: Path, uid: Callable[[int], str]
) -> None:
    good = np.array([(1, 2), (1, 3), (2, 0)], "u8,u8")
    pool = [f"{h:016x}{low:016x}" for h, low in good.tolist()]
    path = tmp_path / "s.npy"
    for bad, match in (
        (good[::-1], "not sorted, 2 of 3"),
        (good[[0, 2, 1]], "not sorted, 1 of 3 records"),
        (np.array([[1, 2]], "u8"), "expected one-dimensional"),
        (good.astype(">u8,>u8"), "expected one-dimensional"),
        (good.astype("i8,i8"), "expected one-dimensional"),
        (good[:0], "no record"),
        (
            np.array([(1, 2), (9, 9), (9, 9)], "u8,u8"),
            "2 of 3 records are not among the pool's 3: 00000000000000090000000000000009",
        ),
    ):
        np.save(path, bad)
        with pytest.raises(SubsetError, match=match):
            verify_datacomp(path, pool)
    for junk in (b"", b"junk", good.tobytes()):
        path.write_bytes(junk)
        with pytest.raises(SubsetError, match="not a numpy file"):
            verify_datacomp(path)
    np.save(path, good)
    assert verify_datacomp(path, pool).records == 3


def test_parquet_file(manifest: Path, tmp_path: Path) -> None:
    export_parquet(manifest, tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert dict(zip(*(table[c].to_pylist() for c in ("uid", "count")), strict=True)) == bag(manifest)


def test_shards_hold_the_multiset_and_webdataset_reads_them(
    manifest: Path, pool: Path, tmp_path: Path
) -> None:
    import webdataset

    report = export_webdataset(manifest, pool, tmp_path / "out", shard_size=4, seed=1)
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    urls = [
        str(tmp_path / "out" / meta["output_shard_format"].format(i))
        for i in range(meta["output_shard_count"])
    ]
    assert (report.shards, report.samples, report.distinct, report.meeting) == (5, 20, 10, 0)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(
        [f"{i:08d}{end}" for i in range(5) for end in (".tar", "_stats.json")]
        + ["meta.json", "sample_ids.npy"]
    )
    samples = pq.ParquetFile(pool / "samples.parquet").read().to_pylist()
    known = {row["uid"].hex: row for row in samples}
    seen: Counter[str] = Counter()
    for number, url in enumerate(urls):
        read = list(webdataset.WebDataset(url, shardshuffle=False))
        uids = [json.loads(sample["json"])["uid"].lower() for sample in read]
        assert (
            len(read) == 4 == json.loads((tmp_path / f"out/{number:08d}_stats.json").read_text())["successes"]
        )
        assert len(set(uids)) == len(uids), "copies of one uid in one shard"
        for uid, sample in zip(uids, read, strict=True):
            assert sample["txt"].decode() == known[uid]["text"] and sample["__key__"].split("-")[0] == uid
        seen.update(uids)
    assert seen == bag(manifest)
    assert verify_datacomp(tmp_path / "out/sample_ids.npy", list(seen)).records == 20


def test_pool_to_subset_to_shards_to_pool_keeps_uids_and_bytes(
    manifest: Path, pool: Path, tmp_path: Path
) -> None:
    once = write_manifest(tmp_path / "once", 0, read_manifest(manifest).uids, [1] * 10, {})
    export_webdataset(once, pool, tmp_path / "out", shard_size=3)
    again = build_pool(tmp_path / "out", tmp_path / "home2")
    columns = ["uid", "text", "image_size", "width", "height", "image_format", "n"]
    before = pq.ParquetFile(pool / "samples.parquet").read().select(columns).to_pylist()
    after = pq.ParquetFile(again.samples_path).read().select(columns).to_pylist()
    assert after == [row for row in before if row["uid"].bytes in set(read_manifest(manifest).uids.tolist())]
    copies = build_pool(
        str(_exported(manifest, pool, tmp_path / "copies")), tmp_path / "home2", BuildOptions(max_rejects=1.0)
    )
    assert (copies.samples, copies.reasons) == (10, {"duplicate_uid": 10})


def test_the_same_export_is_the_same_bytes_and_another_directory_is_refused(
    manifest: Path, pool: Path, tmp_path: Path
) -> None:
    first, second = _exported(manifest, pool, tmp_path / "a"), _exported(manifest, pool, tmp_path / "b")
    names = sorted(os.listdir(first))
    assert [(first / n).read_bytes() for n in names] == [(second / n).read_bytes() for n in names]
    inode = (first / "meta.json").stat().st_ino
    export_webdataset(manifest, pool, first, shard_size=4, seed=1)
    assert (first / "meta.json").stat().st_ino == inode
    with pytest.raises(SubsetError, match="not empty, and not this export"):
        export_webdataset(manifest, pool, first, shard_size=5, seed=1)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "00000099.tar").write_bytes(b"old")
    with pytest.raises(SubsetError, match="old tars"):
        export_webdataset(manifest, pool, tmp_path / "c")
    other = export_webdataset(manifest, pool, tmp_path / "d", shard_size=4, seed=2).path
    assert (other / "00000000.tar").read_bytes() != (first / "00000000.tar").read_bytes()


def test_a_killed_export_leaves_nothing_under_its_name_and_finishes_next_time(
    manifest: Path, pool: Path, tmp_path: Path
) -> None:
    script = (
        "import sys, time; import tasks.shard_exports as s\n"
        "real = s.write_shard\n"
        "def slow(*a): real(*a); print('shard', flush=True); time.sleep(60)\n"
        "s.write_shard = slow\n"
        "s.export_webdataset(*sys.argv[1:], shard_size=4, seed=1)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(manifest), str(pool), str(tmp_path / "out")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None and writer.stdout.readline() == "shard\n"
    with pytest.raises(SubsetError, match="another export is writing it"):
        _exported(manifest, pool, tmp_path / "out")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    time.sleep(0.01)
    assert not (tmp_path / "out").exists()
    out, reference = (
        _exported(manifest, pool, tmp_path / "out"),
        _exported(manifest, pool, tmp_path / "reference"),
    )
    assert all((out / n).read_bytes() == (reference / n).read_bytes() for n in os.listdir(reference))
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_manifest_of_another_pool_is_refused(pool: Path, tmp_path: Path, uid: Callable[[int], str]) -> None:
    foreign = write_manifest(tmp_path / "run", 0, [uid(1), uid(200)], [1, 1], {})
    with pytest.raises(SubsetError, match=r"1 of 2 uids are not in .*samples\.parquet, first c8c8"):
        export_webdataset(foreign, pool, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 5))
def test_dealing_is_even_and_parts_copies(counts: list[int], shards: int, seed: int) -> None:
    """Every copy once; sizes within one; copies of a uid as far apart as the number of shards allows."""
    subset = Manifest(Path(), uid_bytes([f"{i:x}" for i in range(len(counts))]), np.array(counts), {})
    shards = min(shards, subset.total)
    hands = list(deal(subset, shards, seed))
    assert sorted(card for hand in hands for card in hand) == [
        (i, c) for i, n in enumerate(counts) for c in range(n)
    ]
    assert max(map(len, hands)) - min(map(len, hands)) <= 1
    for hand in hands:
        most = Counter(position for position, _ in hand)
        assert all(n <= -(-counts[position] // shards) for position, n in most.items())


def _exported(manifest: Path, pool: Path, out: Path) -> Path:
    return export_webdataset(manifest, pool, out, shard_size=4, seed=1).path
