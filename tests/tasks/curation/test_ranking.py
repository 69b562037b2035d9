"""The order of a filter, by samples and by groups: against sorted lists, and through a whole comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.catalog.subset_names import file_name, filter_and_column, spelt
from tasks.curation.beforehand import check_pool
from tasks.curation.comparison import ComparisonError, known_subset, subset_counts
from tasks.curation.ranking import filter_scores, group_means, ranked
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.report.reports import write_report
from tasks.report.result_words import summary
from tasks.report.results import result_table
from tasks.scoring.groups import GroupError
from tasks.tables.published import read
from tasks.tables.run_folders import chosen_round
from testing.small_catalog import curate_plainly, small_catalog

SUBSETS = 'subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]'
POOLED = 'subsets = ["everything", "loss_filter@text", "domain_match_filter", "mgd"]'
SHORT = (("steps = 8", "steps = 4"), ("window_start = 4", "window_start = 2"), ("probe_steps = [4, 6]", ""))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that compares a filter by groups."""
    place = tmp_path_factory.mktemp("ranked")
    catalog = small_catalog(place, *SHORT, ("rounds = 2", "rounds = 1"), (SUBSETS, POOLED))
    return curate_plainly(catalog, place / "home")


@pytest.fixture
def recipe(directory: Path) -> Iterator[PoolRecipe]:
    with open_recipe(directory) as recipe:
        yield recipe


def test_whole_groups_follow_each_other_by_their_means(recipe: PoolRecipe) -> None:
    scores = filter_scores(recipe, "loss_filter")
    captions = pq.read_table(recipe.pool.samples_path, columns=["text"])["text"].to_pylist()
    groups = defaultdict(list)
    for i, caption in enumerate(captions):
        groups[caption].append(i)
    assert 1 < len(groups) < len(captions)
    order = sorted(groups.values(), key=lambda own: sum(scores[own]) / len(own))
    wanted = [i for own in order for i in sorted(own, key=lambda i: (scores[i], i))]
    assert ranked(recipe, "loss_filter@text").tolist() == wanted
    by_cluster = ranked(recipe, "domain_match_filter@image_cluster*text_cluster")
    assert sorted(by_cluster) == list(range(len(scores))) and filter_and_column("a@b*c") == ("a", "b*c")
    assert ranked(recipe, "loss_filter").tolist() == sorted(range(len(scores)), key=lambda i: (scores[i], i))


def test_equal_means_leave_groups_whole() -> None:
    scores, codes = np.array([1.0, 3.0, 2.0, 2.0]), np.array([0, 0, 1, 1])
    assert group_means(scores, codes).tolist() == [2, 2, 2, 2]
    assert group_means(np.array([1.0, 3.0, 5.0]), np.array([2, 0, 2])).tolist() == [3, 3, 3]


def test_it_is_cut_at_the_size_of_the_chosen_subset_and_named(directory: Path, recipe: PoolRecipe) -> None:
    home, name = directory.parents[1], directory.name
    chosen = chosen_round(home, name)
    assert chosen is not None
    size = int((subset_counts(recipe, "mgd", 1, chosen) > 0).sum())
    counts = subset_counts(recipe, "loss_filter@text", 1, chosen)
    assert set(np.flatnonzero(counts)) == set(ranked(recipe, "loss_filter@text")[:size]) and counts.max() == 1
    rows = {row["subset"]: row for row in result_table(home, name)}
    assert rows["loss_filter@text"]["name"] == "loss filter, by text"
    assert rows["domain_match_filter"]["name"] == "domain-match filter"
    assert rows["loss_filter@text"]["distinct"] == size and len({row["samples_seen"] for row in rows.values()}) == 1
    assert "loss_filter@text" in read(home, name, "evaluations")["subset"].to_pylist()
    assert "loss filter, by text" in write_report(home, name).read_text()


def test_answers_one_by_one_are_published_and_the_lead_of_mgd_with_them(directory: Path) -> None:
    home, name = directory.parents[1], directory.name
    shares = {
        (row["subset"], row["seed"]): (row["correct"].count("1") / 40, row["n"], row["metric"])
        for row in read(home, name, "answers").to_pylist()
    }
    accuracies = {
        (row["subset"], row["seed"]): (row["value"], 40, "acc1")
        for row in read(home, name, "evaluations").to_pylist()
        if row["metric"] == "acc1" and row["task"] == "fashion"
    }
    assert shares == {key: pytest.approx(value) for key, value in accuracies.items()} and len(shares) == 4
    means = {subset: share for (subset, _), (share, *_) in shares.items()}
    leads = read(home, name, "paired_differences").to_pylist()
    assert {row["subset"] for row in leads} == means.keys() - {"mgd"}
    for row in leads:
        assert row["difference"] == pytest.approx(means["mgd"] - means[row["subset"]])
        assert row["low"] <= row["difference"] <= row["high"] and (row["seeds"], row["n"]) == (1, 40)
    page = write_report(home, name).read_text()
    assert "mgd ahead by" in page and "less that:" in page
    assert "metagradient descent less the best rival" in summary(home, name)


def test_scores_are_computed_once(recipe: PoolRecipe) -> None:
    path = recipe.run.work("comparison", "domain_match_filter-scores.npy")
    before = path.stat().st_mtime_ns
    assert (filter_scores(recipe, "domain_match_filter") == np.load(path)).all()
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("loss_filtre", "no subset is called 'loss_filtre'; there are everything"),
        ("embedding_filter", "no subset is called 'embedding_filter'"),
        ("random@text", "what can be averaged over groups are the scores of loss_filter, own_clip_filter"),
        ("loss_filter@", "a column of the pool, as in 'loss_filter@source'"),
        ("clip_filter@text", "'clip_filter' is now 'own_clip_filter'"),
    ],
)
def test_what_is_no_subset_is_told(tmp_path: Path, directory: Path, named: str, message: str) -> None:
    with pytest.raises(CatalogError, match=r"small\.toml: key 'comparison\.subsets'") as told:
        load_catalog(small_catalog(tmp_path, (SUBSETS, f'subsets = ["mgd", "{named}"]')))
    assert message in str(told.value)
    with open_recipe(directory) as recipe, pytest.raises(ComparisonError, match="catalog 'small'"):
        known_subset(recipe.catalog, named)


def test_a_column_that_tells_no_groups_is_told_before_training(
    tmp_path: Path, directory: Path, recipe: PoolRecipe
) -> None:
    catalog = load_catalog(small_catalog(tmp_path, (SUBSETS, 'subsets = ["mgd", "loss_filter@truth_clean"]')))
    with pytest.raises(GroupError, match=r"comparison\.subsets, 'loss_filter@truth_clean': .* there are .*text"):
        check_pool(catalog, recipe.pool)
    known_subset(recipe.catalog, "loss_filter@shard")
    with pytest.raises(GroupError, match="'nothing' is no column"):
        subset_counts(recipe, "loss_filter@nothing", 1, 0)


def test_columns_of_any_name_make_file_names() -> None:
    assert spelt("loss_filter@a * b") == "loss_filter@a*b" and spelt("mgd") == "mgd"
    assert file_name("loss_filter@source") == "loss_filter@source"
    assert "/" not in file_name("loss_filter@a/b") and file_name("x@a/b") != file_name("x@a-b")
