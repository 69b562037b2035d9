"""A catalog's `descent.start`: checked with the catalog, part of the run's identity, and the counts of round 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.curation import estimate
from tasks.curation.begin import begin_run
from tasks.modality.registry import open_recipe
from tasks.pool.pools import build_pool
from tasks.subset.files import read_subset
from tasks.tables.published import read
from tasks.tables.uids import to_words, uid_bytes
from testing.small_catalog import small_catalog


def test_round_0_has_the_counts_of_the_start(tmp_path: Path) -> None:
    catalog = small_catalog(tmp_path, ("rounds = 2", 'rounds = 2\nstart = "subsets/mine.npy | own.sql"'))
    (tmp_path / "own.sql").write_text(
        "-- Narrow ones, none of which there is.\nSELECT uid FROM samples WHERE width < 0"
    )
    options, home = load_catalog(catalog), tmp_path / "home"
    assert options.descent.start == f'("{tmp_path}/subsets/mine.npy" | "{tmp_path}/own.sql")'
    pool = build_pool(str(options.pool.source), home, options.pool.build_options())
    uids = np.sort(uid_bytes(_uids(pool.samples_path)))
    (tmp_path / "subsets").mkdir()
    np.save(tmp_path / "subsets/mine.npy", np.repeat(to_words(uids[::4]), 2))
    run = begin_run(home, catalog, pool)
    with open_recipe(run.directory) as bench:
        estimate.publish_pool(bench)
    expected = np.where(np.arange(len(uids)) % 4 == 0, 2, 0)
    assert read(home, run.id, "counts", 0)["count"].to_pylist() == expected.tolist()
    subset = read_subset(run.counts(0))
    assert subset.uids.tolist() == uids[::4].tolist() and set(subset.counts) == {2}
    assert begin_run(home, catalog, pool).id == run.id
    np.save(tmp_path / "subsets/mine.npy", to_words(uids[::4]))
    assert begin_run(home, catalog, pool).id != run.id, "other contents, another run"


def test_a_start_that_cannot_be_read_is_told_with_the_catalog(tmp_path: Path) -> None:
    catalog = small_catalog(tmp_path, ("rounds = 2", 'rounds = 2\nstart = "a & "'))
    with pytest.raises(CatalogError, match=r"descent\.start' = 'a & ': .*a subset is missing here\n  a & \n      \^"):
        load_catalog(catalog)


def _uids(path: Path) -> list[bytes]:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["uid"])["uid"].combine_chunks().storage.to_pylist()
