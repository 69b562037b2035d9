"""Subset files piece by piece: the same bytes as in one piece, and the same refusals."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from tasks.subset import files as subset_files
from tasks.subset import record_streams
from tasks.subset.files import SubsetError, read_subset, write_records
from tasks.subset.record_streams import RecordWriter, record_pieces
from tasks.tables.uids import uid_bytes


@pytest.mark.parametrize("cuts", [[], [1], [3, 3, 7], list(range(1, 40))])
def test_written_in_pieces_the_bytes_are_those_in_one(cuts: list[int], tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    uids = np.sort(uid_bytes([bytes(row) for row in draw.integers(0, 256, (40, 16), np.uint8)]))
    counts = draw.integers(1, 5, 40)
    whole, pieces = io.BytesIO(), io.BytesIO()
    write_records(whole, uids, counts)
    writer = RecordWriter(pieces)
    for part in zip(np.split(uids, cuts), np.split(counts, cuts), strict=True):
        writer.add(*part)
    writer.finish()
    assert pieces.getvalue() == whole.getvalue()
    assert (writer.records, writer.distinct, writer.most_copies) == (counts.sum(), 40, counts.max())


def test_uids_that_do_not_ascend_are_refused_across_pieces_too() -> None:
    for first, second in (([1, 2], [2, 3]), ([1, 1], []), ([3], [2])):
        writer = RecordWriter(io.BytesIO())
        with pytest.raises(SubsetError, match="chosen twice"):
            for numbers in (first, second):
                writer.add(uid_bytes([i.to_bytes(16, "big") for i in numbers]), np.ones(len(numbers), np.int64))
    nothing = RecordWriter(io.BytesIO())
    nothing.add(uid_bytes([bytes(16)]), np.ones(1, np.int64))
    assert nothing.distinct == 1, "the uid of 128 zeros is one as well"


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_read_in_pieces_a_file_is_the_same(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = np.repeat(np.array([(i // 4, i) for i in range(30)], "u8,u8"), np.arange(30) % 5)
    np.save(tmp_path / "a.npy", records)
    monkeypatch.setattr(record_streams, "RECORDS_AT_ONCE", piece)
    found = list(record_pieces(tmp_path / "a.npy"))
    whole = read_subset(tmp_path / "a.npy")
    assert (np.concatenate([uids for uids, _ in found]) == whole.uids).all()
    assert (np.concatenate([counts for _, counts in found]) == whole.counts).all()
    np.save(tmp_path / "b.npy", records[[0, 1, 3, 2, 4]])
    with pytest.raises(SubsetError, match="not sorted, record 4"):
        list(record_pieces(tmp_path / "b.npy"))
    assert subset_files.RECORDS_AT_ONCE > 1000
