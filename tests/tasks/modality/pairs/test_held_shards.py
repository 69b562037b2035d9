"""Windowed training: the same pixels as decoded ones, and each shard read from its store about once an epoch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.curation.begin import begin_run
from tasks.modality.pairs.held_shards import HeldShards
from tasks.modality.pairs.pairs import Images, load_pairs
from tasks.modality.registry import open_recipe
from tasks.pool.pools import PoolRecord, build_pool
from tasks.tables.published import read_parquet
from testing.small_catalog import small_catalog

SHARDS, BATCH = 12, 8


class CountedFileSystem(MemoryFileSystem):
    """Files in memory; counts the bytes that are read of each."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    read: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("counted://"))

    def unstrip_protocol(self, name: str) -> str:
        return f"counted://{name.lstrip('/')}"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        data = bytes(super().cat_file(path, start, end, **kwargs))
        self.read[path] += len(data)
        return data


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """The small catalog's pool, twelve shards, in a store that counts what is read."""
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    small_catalog(tmp_path)
    pool = build_pool(tmp_path / "sheet", tmp_path / "made", options(shard_size=240 // SHARDS))
    fs = fsspec.filesystem("counted")
    fs.put(str(pool.directory / "shards"), "/far/shards", recursive=True)
    yield "counted://far/shards"
    fs.rm("/far", recursive=True)


def options(**values: Any) -> Any:
    from tasks.pool.record import BuildOptions

    return BuildOptions(**values)


def test_a_training_reads_each_shard_about_once_an_epoch(store: str, tmp_path: Path) -> None:
    epochs = 4
    pool = f'[pool]\nsource = "{store}"\n[pool.remote]\ncache_gib = 0.0\n'
    catalog = small_catalog(
        tmp_path / "far",
        ('[pool]\nsource = "sheet"\nshard_size = 100\n', pool),
        ("steps = 8\nbatch = 32", f"steps = {epochs * 240 // BATCH}\nbatch = {BATCH}\nwindow = {BATCH}"),
        # One reader: of several, one that overtakes another may have a shard read once more.
        ("threads = 1", 'threads = 1\nreaders = 1\ndecoded_disk = "0B"'),
    )
    options = load_catalog(catalog).pool
    record = build_pool(str(options.source), tmp_path / "home", options.build_options())
    with open_recipe(begin_run(tmp_path / "home", catalog, record).directory) as bench:
        sizes = {path: CountedFileSystem.store[path].size for path in CountedFileSystem.store}
        CountedFileSystem.read.clear()
        learner, _ = bench.learner(np.ones(240, np.int64), 0)
        learner.batches.expect(range(learner.steps))  # type: ignore[attr-defined]
        seen = [learner.batches(t) for t in range(learner.steps)]
        assert len(CountedFileSystem.read) == SHARDS
        for path, size in sizes.items():
            assert CountedFileSystem.read[path] <= (epochs + 1) * size
        reads = sum(CountedFileSystem.read.values()) / sum(sizes.values())
        assert 0.6 * epochs < reads <= epochs, reads  # epochs that begin with shards of the last one save some
        whole = load_pairs(record, 32)
        for batch in seen[:40]:
            assert torch.equal(batch.rows[0], whole.pixels(batch.ids.numpy()))
        visits = torch.bincount(torch.cat([batch.ids for batch in seen]), minlength=240)
        assert (visits == epochs).all()


@pytest.fixture
def streamed(tmp_path: Path) -> tuple[PoolRecord, HeldShards, np.ndarray, Images]:
    small_catalog(tmp_path)
    pool = build_pool(tmp_path / "sheet", tmp_path / "home", options(shard_size=20))
    place = load_pairs(pool, 32, decoded_disk=0).streamed
    assert place is not None
    names = read_parquet(pool.samples_path, ["shard"])["shard"].to_pylist()
    shards = np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)
    held = HeldShards(place, np.ones(240, bool), capacity=60)
    return pool, held, shards, load_pairs(pool, 32).images(np.arange(240))


def test_what_was_used_last_is_kept(streamed: tuple[PoolRecord, HeldShards, np.ndarray, Images]) -> None:
    _, held, shards, images = streamed
    own = [np.flatnonzero(shards == s) for s in range(12)]
    for s in (0, 1, 2, 1, 0, 2):
        assert np.array_equal(held(own[s][::-3]), images[own[s][::-3]])
    assert held.reads == 3
    held.expect([3])  # of room for three, the one that was used longest ago goes
    assert np.array_equal(held(np.concatenate([own[0][:2], own[2][:1]])), images[np.r_[own[0][:2], own[2][:1]]])
    assert held.reads == 4
    held(own[1][:1])
    assert held.reads == 5
    everywhere = np.random.default_rng(0).permutation(240)[:90]  # more shards than are kept
    assert np.array_equal(held(everywhere), images[everywhere])


def test_threads_share_what_is_read(streamed: tuple[PoolRecord, HeldShards, np.ndarray, Images]) -> None:
    _, held, shards, images = streamed
    ids = np.flatnonzero(shards < 3)
    wrong: list[int] = []

    def ask(seed: int) -> None:
        chosen = np.random.default_rng(seed).permutation(ids)[:25]
        if not np.array_equal(held(chosen), images[chosen]):
            wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and held.reads == 3


def test_a_read_that_failed_is_made_again(streamed: tuple[PoolRecord, HeldShards, np.ndarray, Images]) -> None:
    pool, held, shards, images = streamed
    ids = np.flatnonzero(shards == 5)[:4]
    tar = sorted((pool.directory / "shards").glob("*.tar"))[5]
    tar.rename(tar.with_suffix(".away"))
    with pytest.raises(FileNotFoundError):
        held(ids)
    tar.with_suffix(".away").rename(tar)
    assert np.array_equal(held(ids), images[ids])


def test_a_window_smaller_than_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"window \(16\) is smaller than a batch \(32\)"):
        load_catalog(small_catalog(tmp_path, ("batch = 32", "batch = 32\nwindow = 16")))
