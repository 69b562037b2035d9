"""Manifests: counts above 0, sorted, with their provenance, in equal bytes for equal content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.tables.manifests import ManifestError, read_manifest, write_manifest
from tasks.tables.uids import uid_hex

PROVENANCE = {"catalog": "c" * 32, "pool": "p", "round": 3, "parent": None, "versions": {"torch": "2"}}


def test_round_trip(tmp_path: Path, uid: Callable[[int], str]) -> None:
    path = write_manifest(tmp_path, 3, [uid(i) for i in (2, 0, 1, 3)], [1, 2, 0, 3], PROVENANCE)
    manifest = read_manifest(path)
    assert path.name == "round-003.parquet" and manifest.provenance == PROVENANCE
    assert (
        uid_hex(manifest.uids) == [uid(0), uid(2), uid(3)]
        and manifest.counts.tolist() == [2, 1, 3]
        and manifest.total == 6
    )


def test_equal_content_gives_equal_bytes(tmp_path: Path, uid: Callable[[int], str]) -> None:
    uids = [uid(i) for i in range(4)]
    one = write_manifest(tmp_path / "a", 3, uids, [1, 2, 0, 3], PROVENANCE)
    two = write_manifest(
        tmp_path / "b",
        3,
        pa.array([bytes.fromhex(u) for u in uids], pa.uuid()),
        np.array([1, 2, 0, 3]),
        dict(reversed(PROVENANCE.items())),
    )
    other = write_manifest(tmp_path / "c", 3, uids, [1, 2, 0, 3], {**PROVENANCE, "round": 4})
    assert one.read_bytes() == two.read_bytes() and read_manifest(one).digest == read_manifest(two).digest
    assert read_manifest(other).digest != read_manifest(one).digest


def test_counts_that_make_no_manifest_are_refused(tmp_path: Path, uid: Callable[[int], str]) -> None:
    two = [uid(0), uid(1)]
    for uids, counts, match in (
        (two, [1, -1], "whole numbers from 0 on"),
        (two, [1.0, 2.0], "whole numbers from 0 on"),
        (two, [0, 0], "every sample was dropped"),
        (two, [1], "2 uids but counts of shape"),
        ([uid(0), uid(0)], [1, 1], "more than once"),
    ):
        with pytest.raises(ManifestError, match=match):
            write_manifest(tmp_path, 0, uids, counts, {})
    assert not (tmp_path / "manifests").exists()


def test_another_parquet_file_is_no_manifest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a"], "count": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ManifestError, match="no manifest"):
        read_manifest(tmp_path / "x.parquet")
