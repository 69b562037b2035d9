"""What is made of a pool part by part: the same bytes in any order, after a kill, and from many sides."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from mgd_core.whole_files import NoRoom
from tasks.modality.pairs import caption_tokens
from tasks.modality.pairs.caption_tokens import CaptionTokens
from tasks.modality.pairs.decoded import DecodedPool, rows_of
from tasks.modality.pairs.pairs import load_pairs, load_tokens
from tasks.modality.pairs.tokens import padded, tokenize
from tasks.modality.prepared import Prepared
from tasks.pool.columns import columns_of
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions, PoolRecord
from tasks.tables.published import read_parquet
from testing.children import CHILDREN
from testing.small_catalog import small_catalog

SIDE, LENGTH = 24, 7


class SmallTokens(CaptionTokens):
    at_least = 50


class SmallPictures(DecodedPool):
    at_least = 30


@pytest.fixture
def pool(tmp_path: Path) -> PoolRecord:
    small_catalog(tmp_path)
    return build_pool(tmp_path / "sheet", tmp_path / "home", BuildOptions(shard_size=20))


def made(pool: PoolRecord) -> tuple[SmallTokens, SmallPictures]:
    columns = columns_of(pool)
    return SmallTokens(columns, pool, LENGTH), SmallPictures(columns, pool, SIDE)


def bytes_of(one: Prepared) -> dict[str, bytes]:
    """What is left when it is whole."""
    return {path.name: path.read_bytes() for path in one.directory.iterdir() if path.name != ".lock"}


def test_parts_end_with_shards_and_the_whole_is_that_of_one_part(pool: PoolRecord, tmp_path: Path) -> None:
    tokens, pictures = made(pool)
    assert pictures.parts == [(at, min(at + 40, 240)) for at in range(0, 240, 40)]
    assert tokens.parts == [(0, 50), (50, 100), (100, 150), (150, 200), (200, 240)]
    for one in (tokens, pictures):
        for number in reversed(one.pending()):
            one.make(number)
        one.finish()
        assert one.is_whole and one.pending() == []
    found = bytes_of(tokens), bytes_of(pictures)
    assert set(found[0]) == {"tokens.npy", "starts.npy", "whole.json"}
    assert set(found[1]) == {"images.npy", "digests.npy", "whole.json"}
    for one in made(pool):
        (one.directory / "whole.json").unlink()
        for path in one.directory.glob("*.npy"):
            path.unlink()
    columns = columns_of(pool)
    whole = CaptionTokens(columns, pool, LENGTH), DecodedPool(columns, pool, SIDE)
    for one, before in zip(whole, found, strict=True):
        assert len(one.parts) == 1
        one.ensure()
        assert bytes_of(one) == before


def test_tokens_and_pictures_are_found_by_position(pool: PoolRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_tokens, "AT_ONCE", 17)
    tokens, _ = made(pool)
    opened, texts = tokens.opened(), read_parquet(pool.samples_path, ["text"])["text"].to_pylist()
    expected = padded(*tokenize(texts, LENGTH), LENGTH)
    ids = np.random.default_rng(0).permutation(240)[:99]
    assert np.array_equal(opened.rows(ids), expected[ids])
    assert np.array_equal(opened.used, np.unique(expected)) and np.array_equal(
        load_tokens(pool, LENGTH).used, opened.used
    )
    kept, streamed = load_pairs(pool, SIDE), load_pairs(pool, SIDE + 1, decoded_disk=0)
    again = load_pairs(pool, SIDE, decoded_disk=0)
    assert again.streamed is None, "what is there is used, however small the budget"
    assert streamed.streamed is not None and streamed.digests is None
    assert kept.digests is not None and len(set(kept.digests.tolist())) > 200
    row = int(kept.columns.rows[ids[3]])
    assert rows_of(np.array([b"x" * 16, kept.digests[row]], "S16"), kept.digests).tolist() == [-1, row]
    assert rows_of(np.zeros(0, "S16"), kept.digests).tolist() == []


def test_a_vocabulary_without_filled_up_rows_has_no_filler(pool: PoolRecord) -> None:
    columns = columns_of(pool)
    for length, filled in ((2, False), (60, True)):
        used = SmallTokens(columns, pool, length).opened().used
        assert (used[0] == 0) == filled


def make_all(pool: PoolRecord) -> None:
    """In a process that is killed meanwhile."""
    for one in made(pool):
        one.ensure()


def finished_parts(pool: PoolRecord) -> dict[Path, int]:
    """Records of parts and when they were written."""
    return {path: path.stat().st_mtime_ns for path in pool.directory.glob("*/part-*.json")}


@pytest.mark.slow
def test_killed_again_and_again_finished_parts_stay(pool: PoolRecord, tmp_path: Path) -> None:
    other = build_pool(tmp_path / "sheet", tmp_path / "other", BuildOptions(shard_size=20))
    make_all(other)
    for target in range(1, 6):
        before, records = finished_parts(pool), 0
        child = CHILDREN.Process(target=make_all, args=(pool,))
        child.start()
        while child.is_alive() and records < target:
            records = len(list(pool.directory.glob("*/part-*.json")))
        child.kill()
        child.join()
        there = finished_parts(pool)
        assert all(there.get(path, stamp) == stamp for path, stamp in before.items()), "a part was made again"
    make_all(pool)
    for mine, theirs in zip(made(pool), made(other), strict=True):
        assert bytes_of(mine) == bytes_of(theirs)


def test_pictures_that_somebody_removed_are_decoded_again(pool: PoolRecord) -> None:
    _, pictures = made(pool)
    pictures.ensure()
    before = bytes_of(pictures)
    (pictures.directory / "images.npy").unlink()
    assert not pictures.is_whole and len(pictures.pending()) == 6
    pictures.ensure()
    assert bytes_of(pictures) == before


def test_a_full_disk_is_told_before_anything_is_decoded(pool: PoolRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    _, pictures = made(pool)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(DecodedPool, "write", None)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(NoRoom, match=r"writing images\.npy needs more"):
            pictures.pending()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
