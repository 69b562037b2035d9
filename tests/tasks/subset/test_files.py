"""Subset files: every form read back as the same subset, and nothing read that is none."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.subset import files as subset_files
from tasks.subset.files import Subset, SubsetError, counted, foreign_uids, read_subset, write_records
from tasks.tables.uids import to_words, uid_bytes, uid_hex
from testing.manifests import write_manifest

BAGS = st.dictionaries(
    st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"), st.integers(1, 7), min_size=1, max_size=30
)


def subset_of(bag: dict[str, int]) -> Subset:
    names = sorted(bag)
    return Subset(Path(), uid_bytes(names), np.array([bag[name] for name in names]))


def bag_of(subset: Subset) -> dict[str, int]:
    return dict(zip(uid_hex(subset.uids), subset.counts.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(BAGS, st.integers(1, 9))
def test_records_written_in_slices_are_numpys_own(bag: dict[str, int], at_once: int) -> None:
    subset, file, reference = subset_of(bag), io.BytesIO(), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset_files, "RECORDS_AT_ONCE", at_once)
        write_records(file, subset.uids, subset.counts)
    np.save(reference, np.repeat(to_words(subset.uids), subset.counts))
    assert file.getvalue() == reference.getvalue()
    words = np.load(io.BytesIO(file.getvalue()))
    assert Counter(f"{high:016x}{low:016x}" for high, low in words.tolist()) == bag
    assert bag_of(counted(Path(), np.repeat(subset.uids, subset.counts))) == bag


def test_every_form_is_the_same_subset(tmp_path: Path, uid: Callable[[int], str]) -> None:
    bag = {uid(3): 2, uid(200): 1, uid(0): 5}
    subset = subset_of(bag)
    with open(tmp_path / "s.npy", "wb") as file:
        write_records(file, subset.uids, subset.counts)
    (tmp_path / "bare").write_bytes(np.repeat(to_words(subset.uids), subset.counts).tobytes())
    columns = {"uid": [*bag, uid(9)], "count": [*bag.values(), 0]}
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    manifest = write_manifest(tmp_path, 1, columns["uid"], columns["count"], {})
    for path in (tmp_path / "s.npy", tmp_path / "bare", tmp_path / "s.parquet", manifest):
        found = read_subset(path)
        assert bag_of(found) == bag and found.digest == subset.digest and found.total == 8
    assert subset.digest != subset_of({**bag, uid(0): 4}).digest != subset_of({**bag, uid(1): 4}).digest


def test_what_is_no_subset_is_refused(tmp_path: Path, uid: Callable[[int], str]) -> None:
    path = tmp_path / "s"
    for junk, match in (
        (b"", "no record"),
        (b"junk", "neither a numpy file, nor Parquet, nor bare records: 4 bytes"),
        (b"PAR1" + b"x" * 60, "not a readable Parquet file"),
        (bytes(range(32, 0, -1)), "not sorted, 1 of 2"),
        (b"\x93NUMPY" + b"x" * 30, "not a numpy file"),
    ):
        path.write_bytes(junk)
        with pytest.raises(SubsetError, match=match):
            read_subset(path)
    for table, match in (
        ({"uid": [uid(1)]}, r"columns \['uid'\]"),
        ({"uid": [uid(1), uid(1)], "count": [1, 2]}, "1 uids have more than one row, first 01010101"),
        ({"uid": [uid(1)], "count": [-1]}, "whole numbers"),
        ({"uid": [uid(1)], "count": [1.5]}, "whole numbers"),
        ({"uid": ["x"], "count": [1]}, "not a uid"),
        ({"uid": [uid(1)], "count": [0]}, "no sample has a count above 0"),
    ):
        pq.write_table(pa.table(table), path)
        with pytest.raises(SubsetError, match=match):
            read_subset(path)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_foreign_uids(wanted: set[int], pool: set[int]) -> None:
    given_uids, pool_uids = (uid_bytes([f"{n:x}" for n in numbers]) for numbers in (wanted, pool))
    assert foreign_uids(given_uids, pool_uids).tolist() == [number not in pool for number in wanted]
