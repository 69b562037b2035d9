"""Exports: subset files that DataComp's tools take, read back by numpy and pyarrow themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.export.exports import PROVENANCE, export_datacomp, export_parquet, verify_datacomp
from tasks.subset.files import SubsetError, read_subset
from tasks.tables.published import counts_file, files, publish
from tasks.tables.uids import uid_array, uid_hex
from testing.manifests import write_manifest

COUNTS = [0, 3, 1, 2, 0, 1, 5, 1, 1, 2, 1, 3]


@pytest.fixture
def pool(uid: Callable[[int], str]) -> list[str]:
    """The uids of a pool of 12 samples."""
    return [uid(number) for number in range(12)]


@pytest.fixture
def manifest(pool: list[str], tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "run", 1, pool, COUNTS, {"round": 1})


def bag(manifest: Path) -> Counter[str]:
    subset = read_subset(manifest)
    return Counter(dict(zip(uid_hex(subset.uids), subset.counts.tolist(), strict=True)))


def test_datacomp_file(manifest: Path, pool: list[str], tmp_path: Path) -> None:
    report = export_datacomp(manifest, tmp_path / "s.npy")
    records = np.load(tmp_path / "s.npy")
    assert records.dtype == np.dtype("u8,u8") and records.tolist() == sorted(records.tolist())
    assert Counter(f"{high:016x}{low:016x}" for high, low in records.tolist()) == bag(manifest)
    assert (report.records, report.distinct, report.most_copies) == (20, 10, 5)
    assert verify_datacomp(tmp_path / "s.npy", pool) == report
    export_datacomp(manifest, tmp_path / "again.npy")
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "s.npy").read_bytes()
    np.save(tmp_path / "numpy.npy", records)
    assert (tmp_path / "numpy.npy").read_bytes() == (tmp_path / "s.npy").read_bytes()


def test_a_table_of_counts_is_exported_to_the_bytes_of_a_former_manifest(
    manifest: Path, pool: list[str], tmp_path: Path
) -> None:
    publish(tmp_path, "run-1", "counts", 1, pa.table({"uid": uid_array(pool), "count": COUNTS}))
    counts = counts_file(tmp_path, "run-1", 1)
    assert counts == files(tmp_path, "run-1", "counts")[1] and counts_file(tmp_path, "run-1", 2) is None
    for of, name in ((manifest, "old"), (counts, "new")):
        export_datacomp(of, tmp_path / f"{name}.npy")
        export_parquet(of, tmp_path / f"{name}.parquet", {"round": 1})
    assert (tmp_path / "old.npy").read_bytes() == (tmp_path / "new.npy").read_bytes()
    assert (tmp_path / "old.parquet").read_bytes() == (tmp_path / "new.parquet").read_bytes()
    former = write_manifest(tmp_path / "runs" / "run-1", 1, pool, COUNTS, {"round": 1})
    assert counts_file(tmp_path, "run-1", 1) == former, "it names the choice of runs that were begun from it"


def test_the_verifier_refuses_what_the_resharder_would_swallow(tmp_path: Path, uid: Callable[[int], str]) -> None:
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
    export_parquet(manifest, tmp_path / "s.parquet", {"round": 1})
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.metadata == {PROVENANCE: b'{"round":1}'}
    assert dict(zip(*(table[c].to_pylist() for c in ("uid", "count")), strict=True)) == bag(manifest)
