"""Metadata of any making: joined where it can be, and else refused with the file, the reason and the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.pool.metadata import MetadataError
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions
from tasks.subset.candidates import CandidatesError, metadata_candidates
from tasks.tables.uids import UID
from testing.whole_census import take_census
from tests.tasks.conftest import uid_of

UIDS = [uid_of(i) for i in range(3)]


def written(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def tars(shard: Callable[..., str], good: Callable[..., list], tmp_path: Path) -> Path:
    """A folder with one tar of three samples; its metadata lies beside it."""
    shard([member for i in range(3) for member in good(i, size=i)])
    return tmp_path / "shards"


def joined(tars: Path, home: str = "home") -> pa.Table:
    return pq.ParquetFile(build_pool(tars, tars.parent / home).samples_path).read()


def forms() -> dict[str, pa.Array]:
    text = pa.array(UIDS)
    return {
        "text": text,
        "large text": text.cast(pa.large_string()),
        "dictionary": text.dictionary_encode(),
        "capitals and dashes": pa.array([f"{uid[:8]}-{uid[8:]}".upper() for uid in UIDS]),
        "bytes": pa.array([bytes.fromhex(uid) for uid in UIDS], pa.binary(16)),
        "uuid": pa.array([bytes.fromhex(uid) for uid in UIDS], UID),
    }


@pytest.mark.parametrize("form", forms())
def test_uids_in_any_form_are_joined(form: str, tars: Path) -> None:
    written(tars.parent / "metadata/a.parquet", uid=forms()[form], score=[0.0, 0.1, 0.2])
    assert joined(tars)["score"].to_pylist() == [0.0, 0.1, 0.2]
    assert take_census(tars, tars.parent / "home").findings.get("no_metadata", 0) == 0


WRONG: dict[str, tuple[Any, str]] = {
    "whole numbers": ([1, 2, 3], "uids are of type int64"),
    "fractions": ([0.5, 1.5, 2.5], "uids are of type double"),
    "nothing": (pa.nulls(3), "uids are of type null"),
    "one is missing": ([UIDS[0], None, UIDS[2]], "1 of 3 rows have no uid"),
    "one is missing in a dictionary": (pa.array([UIDS[0], None, UIDS[2]]).dictionary_encode(), "have no uid"),
    "words": (["a cat", UIDS[1], UIDS[2]], "is not a uid"),
}


@pytest.mark.parametrize("case", WRONG)
def test_uids_that_are_none_are_told_with_the_file(case: str, tars: Path) -> None:
    uids, told = WRONG[case]
    path = written(tars.parent / "metadata/a.parquet", uid=uids, score=[0.0, 0.1, 0.2])
    with pytest.raises(MetadataError, match=rf"a\.parquet: .*{told}"):
        joined(tars)
    assert take_census(tars, tars.parent / "home").findings["unreadable_metadata"] == 1
    with pytest.raises((CandidatesError, MetadataError), match=r"a\.parquet: "), metadata_candidates(tars, [path]):
        pass


def test_a_file_cut_off_is_told_wherever_it_is_read(tars: Path) -> None:
    path = written(tars.parent / "metadata/a.parquet", uid=UIDS, score=[0.0, 0.1, 0.2])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MetadataError, match=r"a\.parquet: no sound Parquet file.*fetch the file again"):
        joined(tars)
    with pytest.raises(ValueError, match=r"a\.parquet: no sound Parquet file"), metadata_candidates(tars, [path]):
        pass


@pytest.mark.parametrize("stretch", [1, 1 << 18])
def test_files_that_disagree_about_a_column_lose_nothing(
    stretch: int, tars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.pool.joins.STRETCH", stretch)
    where = tars.parent / "metadata"
    codes = pa.array(["x"]).dictionary_encode()
    written(where / "a.parquet", uid=UIDS[:1], n=[1], m=[1], code=codes, Score=[0.5], list=[[1]])
    written(where / "b.parquet", uid=UIDS[1:2], n=["two"], m=[0.5], code=["y"], score=[1], list=[3])
    written(where / "c.parquet", uid=UIDS[2:], n=pa.nulls(1), m=pa.nulls(1), code=["z"], SCORE=[2], list=pa.nulls(1))
    table = joined(tars)
    assert table["n"].to_pylist() == ["1", "two", None] and table["m"].to_pylist() == [1.0, 0.5, None]
    assert table["code"].to_pylist() == ["x", "y", "z"] and table["list"].to_pylist() == ["[1]", "3", None]
    assert table["Score"].to_pylist() == [0.5, 1.0, 2.0] and "score" not in table.column_names


def test_columns_that_have_one_name_to_sql_are_one(tars: Path) -> None:
    written(tars.parent / "metadata/a.parquet", uid=UIDS, Uid=[1, 2, 3], k=[1, 2, 3], K=[4, 5, 6], URL=["u"] * 3)
    names = [name.lower() for name in joined(tars).column_names]
    assert len(set(names)) == len(names) and "k" in names and "url" not in names


def test_files_of_equal_names_in_two_folders_are_told_apart(tars: Path) -> None:
    files = [written(tars.parent / f"m/{folder}/0.parquet", uid=UIDS[:2], s=[1, 2]) for folder in "ab"]
    options = BuildOptions(metadata=tuple(str(file) for file in files))
    census = take_census(tars, tars.parent / "home", options)
    directory = tars.parent / "home/census" / census.pool_id
    assert set(pq.read_table(directory / "metadata.parquet")["file"].to_pylist()) == {"a/0.parquet", "b/0.parquet"}
    assert census.findings["metadata_duplicate"] == 2
