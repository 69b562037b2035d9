"""The figures of `benchmarks.curation`: gaps and leads by hand, and the catalogs with what it says otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.curation import FILTERS, POOLS, QUICK, SEEDS, overrides, standings
from tasks.catalog.catalogs import load_catalog
from tasks.files.package_data import CATALOGS
from tasks.modality.pairs.baselines import BASELINES


def test_gaps_and_leads_are_those_of_the_means() -> None:
    draws = np.random.default_rng(0)
    shares = {"everything": 0.4, "oracle": 0.8, "mgd": 0.7, "loss_filter": 0.6, "loss_filter@source": 0.75}
    right = {subset: draws.random((5, 2000)) < share for subset, share in shares.items()}
    found = standings(right)
    assert [one.subset for one in found] == ["oracle", "loss_filter@source", "mgd", "loss_filter", "everything"]
    by_subset = {one.subset: one for one in found}
    everything, oracle = (right[subset].mean() for subset in ("everything", "oracle"))
    for subset, one in by_subset.items():
        assert one.accuracy == pytest.approx(right[subset].mean())
        assert one.gap.value == pytest.approx((right[subset].mean() - everything) / (oracle - everything))
        assert one.behind_mgd.value == pytest.approx(right["mgd"].mean() - right[subset].mean())
    assert by_subset["everything"].gap == (0, 0, 0) and by_subset["oracle"].gap == (1, 1, 1)
    assert 0.7 < by_subset["mgd"].gap.low < by_subset["mgd"].gap.value < by_subset["mgd"].gap.high < 0.82
    assert by_subset["loss_filter"].behind_mgd.low > 0 > by_subset["loss_filter@source"].behind_mgd.high


def test_no_gap_where_the_oracle_is_no_better() -> None:
    right = {subset: np.ones((2, 10), np.bool_) for subset in ("everything", "oracle", "mgd")}
    assert all(np.isnan(one.gap).all() for one in standings(right))


@pytest.mark.parametrize("name", POOLS)
def test_every_filter_is_compared_with_five_seeds(name: str) -> None:
    trials = load_catalog(CATALOGS / f"{name}.toml", overrides(name, quick=False)).comparison
    assert set(FILTERS) == set(BASELINES) and {*FILTERS, "mgd", "oracle", "everything"} <= {*trials.subsets}
    assert trials.seeds == SEEDS and len(SEEDS) == 5
    assert ("loss_filter@source" in trials.subsets) == (name == "icons")
    short = load_catalog(CATALOGS / f"{name}.toml", overrides(name, quick=True))
    assert short.learner.steps == QUICK["learner.steps"] and short.comparison.seeds == (101,)
