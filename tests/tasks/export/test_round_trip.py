"""A pool and the same samples in other shards curate to the same counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.catalog.catalogs import load_catalog
from tasks.curation import estimate, rounds
from tasks.curation.begin import begin_run
from tasks.export.reshard import ReshardOptions, reshard
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions, PoolRecord
from tasks.tables.published import read
from testing.small_catalog import small_catalog


def curated(catalog: Path, home: Path) -> tuple[PoolRecord, Path]:
    """The pool of a catalog, and the run of its first round."""
    options = load_catalog(catalog).pool
    pool = build_pool(str(options.source), home, options.build_options())
    directory = begin_run(home, catalog, pool).directory
    estimate.prepare(directory)
    rounds.train_round(directory, 0, True)
    shards = rounds.shard_names(directory)
    rounds.finish_round(directory, 0, [rounds.probe_shard(directory, 0, shard) for shard in shards])
    return pool, directory


def test_a_resharded_pool_curates_to_the_same_counts(tmp_path: Path) -> None:
    small_catalog(tmp_path)
    made = build_pool(tmp_path / "sheet", tmp_path / "made", BuildOptions(shard_size=100))
    reshard(made.directory, None, tmp_path / "other", ReshardOptions(shard_size=37, seed=5, workers=1))
    found = []
    for name, source in (("a", made.directory / "shards"), ("b", tmp_path / "other")):
        pool = ('[pool]\nsource = "sheet"\nshard_size = 100\n', f'[pool]\nsource = "{source}"\n')
        record, directory = curated(small_catalog(tmp_path / name, pool), tmp_path / f"home-{name}")
        tables = [read(directory.parents[1], directory.name, table, i) for table, i in (("counts", 1), ("samples", 0))]
        found.append((record.shards, tables[0], tables[1].select(["uid", "text"])))
    (shards, counts, samples), (others, again, same) = found
    assert (shards, others) == (3, 7) and samples.equals(same)
    assert counts.equals(again) and np.ptp(counts["count"].to_numpy()) > 0
