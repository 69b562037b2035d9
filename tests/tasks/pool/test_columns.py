"""Columns of a pool: what the samples table says, by position and by shard, without reading it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.pool import columns as pool_column_files
from tasks.pool.columns import columns_of, pool_columns
from tasks.pool.pools import build_pool
from tasks.pool.record import PoolRecord
from tasks.pool.samples import read_images
from tasks.pool.shards import Sample, write_shard
from tasks.tables.published import read_parquet
from tasks.tables.uids import uid_bytes


@pytest.fixture
def pool(tmp_path: Path, picture: Callable[..., bytes]) -> PoolRecord:
    """Three shards of different sizes, whose names and uids are in no common order."""
    draw = np.random.default_rng(0)
    for name, n in (("b", 7), ("a", 4), ("c", 5)):
        samples = (
            Sample(f"{i:03d}", picture(draw.integers(1 << 30)), "png", f"{name} {i}", {"uid": draw.bytes(16).hex()})
            for i in range(n)
        )
        write_shard(tmp_path / "pool" / f"{name}.tar", samples)
    return build_pool(tmp_path / "pool", tmp_path / "home")


def test_they_say_what_the_table_says(pool: PoolRecord) -> None:
    table, columns = read_parquet(pool.samples_path), columns_of(pool)
    shards = np.array(table["shard"].to_pylist())
    assert len(columns) == 16 and columns.names == ["a.tar", "b.tar", "c.tar"]
    assert np.array_equal(columns.uids, uid_bytes(table["uid"]))
    assert [columns.names[number] for number in columns.shards] == shards.tolist()
    for name in columns.names:
        assert np.array_equal(columns.of_shard(name), np.flatnonzero(shards == name))
    assert not len(columns.of_shard("aa.tar")) and not len(columns.of_shard("z"))
    assert np.array_equal(columns.members[columns.rows], np.arange(16)) and columns.edges.tolist() == [0, 4, 11, 16]
    ids = np.random.default_rng(1).permutation(16)[:11]
    assert columns.encoded(ids) == read_images(table.take(ids), pool.directory)
    assert columns.encoded(ids[:0]) == []


def test_they_are_made_once_and_anew_where_one_is_unfinished(pool: PoolRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    place = pool.directory / f"columns-{pool.samples_digest[:12]}"
    first = np.array(columns_of(pool).members)
    (place / "columns.json").unlink()  # killed before the last
    (place / "members.npy").write_bytes(b"half")
    pool_columns.cache_clear()
    assert np.array_equal(columns_of(pool).members, first)
    pool_columns.cache_clear()
    monkeypatch.setattr(pool_column_files, "_make", None)
    assert np.array_equal(columns_of(pool).members, first)


def test_stretches_do_not_show(pool: PoolRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    place = pool.directory / f"columns-{pool.samples_digest[:12]}"
    columns_of(pool)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    (place / "columns.json").unlink()
    monkeypatch.setattr(pool_column_files, "STRETCH", 3)
    pool_columns.cache_clear()
    columns_of(pool)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before and len(before) == 7
