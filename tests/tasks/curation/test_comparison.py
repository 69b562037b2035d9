"""The comparison: rivals by expression, rounds and trainings that are reused, and a run that only compares."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgd_core.errors import UserError
from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.catalog.recipe_options import as_now
from tasks.curation import comparison
from tasks.curation.begin import begin_run
from tasks.curation.expression_baselines import BaselineError, check_baselines, prepare_baselines
from tasks.files.progress import watch
from tasks.modality.registry import open_recipe
from tasks.pool.pools import build_pool
from tasks.report.reports import write_report
from tasks.report.result_words import summary
from tasks.report.results import result_table
from tasks.runs.listing import format_runs
from tasks.runs.run import Run
from tasks.tables import schemas
from tasks.tables.published import publish, read
from tasks.tables.queries import connect
from testing.small_catalog import curate_plainly, small_catalog

SUBSETS = 'subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]'
SHORT = (("steps = 8", "steps = 4"), ("window_start = 4", "window_start = 2"), ("probe_steps = [4, 6]", ""))
RIVALS = 'rivals = { half = "random_fraction(fraction=0.5)", mine = "mine.parquet" }'


def catalog_with(place: Path, trials: str, *changes: tuple[str, str]) -> Path:
    return small_catalog(place, *SHORT, ("rounds = 2", "rounds = 1"), (SUBSETS, trials), *changes)


def own_subset(catalog: Path, home: Path, copies: int = 2) -> None:
    """`mine.parquet` beside the catalog: the pool's first 40 samples, each some times."""
    options = load_catalog(catalog)
    pool = build_pool(str(options.pool.source), home, options.pool.build_options())
    uids = pq.read_table(pool.samples_path, columns=["uid"])["uid"].slice(0, 40)
    pq.write_table(pa.table({"uid": uids, "count": [copies] * 40}), catalog.parent / "mine.parquet")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a catalog of two rivals and its finished run below `home`."""
    place = tmp_path_factory.mktemp("compared")
    catalog = catalog_with(place, f'subsets = ["everything", "mgd"]\n{RIVALS}')
    own_subset(catalog, place / "home")
    curate_plainly(catalog, place / "home")
    return place


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(original, tmp_path / "place")


def run_of(place: Path) -> Path:
    (directory,) = (place / "home" / "runs").iterdir()
    return directory


def change(place: Path, old: str, new: str) -> Path:
    path = place / "small.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return path


@pytest.fixture
def trainings(place: Path) -> Iterator[list[int]]:
    """Lengths of the comparison's trainings from now on; of the rounds, nothing is done again."""

    def rounds() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in place.glob("home/runs/*/work/round-*/*")}

    ended, before = list[int](), rounds()
    watch(lambda what, done, total: ended.append(total) if what.startswith("compare: ") and done == total else None)
    yield ended
    watch(None)
    assert before and rounds() == before


def test_rivals_keep_their_own_samples_and_see_as_many(place: Path) -> None:
    rows = {row["subset"]: row for row in result_table(place / "home", run_of(place).name)}
    assert rows.keys() == {"everything", "mgd", "half", "mine"}
    assert (rows["mine"]["samples"], rows["mine"]["distinct"]) == (80, 40)
    assert 90 < rows["half"]["samples"] == rows["half"]["distinct"] < 150
    assert {row["samples_seen"] for row in rows.values()} == {4 * 32}
    told = summary(place / "home", run_of(place).name)
    assert "mine: " in told and "mine.parquet" in told and "half: random_fraction(fraction=0.5)" in told
    assert "fashion accuracy: 40 samples, standard error up to" in told
    page = write_report(place / "home", run_of(place).name).read_text()
    assert "random_fraction(fraction=0.5)" in page and "mine.parquet" in page


def test_every_accuracy_has_its_n_and_standard_error(place: Path) -> None:
    rows = read(place / "home", run_of(place).name, "evaluations").to_pylist()
    for row in rows:
        assert row["n"] == 40
        known = (row["value"] * (1 - row["value"]) / 40) ** 0.5 if row["metric"] == "acc1" else None
        assert row["standard_error"] == (known if known is None else pytest.approx(known))
    with connect(place / "home") as connection:
        asked = "SELECT seeds, n, standard_error FROM comparison WHERE metric = 'acc1' AND subset = 'mine'"
        (seeds, n, error), *_ = connection.execute(asked).fetchall()
    assert (seeds, n) == (1, 40) and 0 <= error < 0.08
    told = read(place / "home", run_of(place).name, "rounds").to_pylist()
    assert {(row["target_n"], row["heldout_n"]) for row in told} == {(40, 40)}


def test_another_seed_trains_only_what_is_new(place: Path, trainings: list[int]) -> None:
    before = run_of(place)
    curate_plainly(change(place, "seeds = [1]", "seeds = [1, 2]"), place / "home")
    chosen = read(place / "home", before.name, "choices")["round"][0].as_py()
    distinct = 3 if chosen == 0 else 4  # round 0 trains on everything: subsets of equal counts share a training
    assert run_of(place) == before and len(trainings) == distinct
    assert "seeds = [1, 2]" in (before / "catalog.toml").read_text()
    assert Run.load(before).catalog.comparison.seeds == (1, 2)
    assert {row["seeds"] for row in result_table(place / "home", before.name)} == {2}


def test_what_leaves_the_comparison_leaves_the_table_and_trains_nothing(place: Path, trainings: list[int]) -> None:
    # Another name of the whole pool: a training is known by its counts.
    catalog = change(place, RIVALS, 'rivals = { all = "no_filter" }')
    curate_plainly(catalog, place / "home")
    assert not trainings
    rows = {row["subset"]: row for row in result_table(place / "home", run_of(place).name)}
    assert rows.keys() == {"everything", "mgd", "all"}
    assert rows["all"]["fashion acc1"] == rows["everything"]["fashion acc1"]


def test_another_test_reuses_rounds_and_kept_models(place: Path, trainings: list[int]) -> None:
    strange = '[targets.tests.strange]\nsource = "sheet"\nsplit = "test"\nclasses = "label"\n'
    strange += 'templates = ["a xylophone of a {}", "zeppelin {}"]\n[model]'
    curate_plainly(change(place, "[model]", strange), place / "home")
    assert not trainings, "the tests' words are no part of the model"
    (row, *_) = result_table(place / "home", run_of(place).name)
    assert row["strange acc1"] is not None
    mean = (row["fashion acc1"] + row["strange acc1"]) / 2
    assert row["mean of 2 tests acc1"] == pytest.approx(mean)
    # The same pictures in both: their errors do not cancel.
    errors = [row[f"{name} acc1 standard error"] for name in ("fashion", "strange")]
    assert row["mean of 2 tests acc1 standard error"] == pytest.approx(sum(errors) / 2)


def test_a_changed_file_is_another_rival(place: Path, trainings: list[int]) -> None:
    own_subset(place / "small.toml", place / "home", copies=1)
    curate_plainly(place / "small.toml", place / "home")
    assert len(trainings) == 1
    rows = {row["subset"]: row for row in result_table(place / "home", run_of(place).name)}
    assert (rows["mine"]["samples"], rows["mine"]["distinct"]) == (40, 40)


def test_rows_are_published_as_trainings_end(place: Path) -> None:
    directory = run_of(place)
    chosen = read(place / "home", directory.name, "choices")["round"][0].as_py()
    first = comparison.train_subset(directory, "mine", 1, chosen)
    comparison.publish_evaluations(directory, [first], chosen)
    assert set(read(place / "home", directory.name, "evaluations")["subset"].to_pylist()) == {"mine"}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ('"none.npy"', "no filter, saved subset or file"),
        ('"clip_scor(fraction=0.3)"', "did you mean clip_score"),
        ("'clip_score(fraction=0.3)'", "clip"),
        ("'run(id=\"gone-1\")'", "no run 'gone-1'"),
        ("'own.sql - no_filter'", "chooses none"),
        ("'foreign.npy'", "not in"),
        ("'few.npy'", "has 2 distinct samples, and learner.batch is 32"),
    ],
)
def test_a_rival_that_cannot_be_trained_is_told_before_training(place: Path, expression: str, message: str) -> None:
    (place / "own.sql").write_text("-- Everything.\nSELECT uid FROM samples\n")
    np.save(place / "foreign.npy", np.array([(1, 2), (3, 4)], "u8,u8"))
    (samples,) = (place / "home" / "pools").glob("*/samples.parquet")
    uids = [uid.int for uid in pq.read_table(samples, columns=["uid"])["uid"].to_pylist()[:2]]
    np.save(place / "few.npy", np.array([(uid >> 64, uid & (2**64 - 1)) for uid in uids], "u8,u8"))
    catalog = change(place, RIVALS, f"rivals = {{ bad = {expression} }}")
    options = load_catalog(catalog)
    pool = build_pool(str(options.pool.source), place / "home", options.pool.build_options())
    with pytest.raises(BaselineError, match=r"comparison\.rivals\.bad") as told:
        check_baselines(options, place / "home")
        with open_recipe(begin_run(place / "home", catalog, pool).directory) as bench:
            prepare_baselines(bench)
    assert isinstance(told.value, UserError) and message in str(told.value)


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ('subsets = ["clip_filter"]', "'clip_filter' is now 'own_clip_filter'"),
        ('subsets = ["mgd"]\nrivals = { mgd = "basic" }', "a rival cannot be called 'mgd'"),
        ('subsets = ["mgd"]\nrivals = { clip_filter = "basic" }', "a rival cannot be called 'clip_filter'"),
        ('subsets = ["mgd"]\nrivals = { "../x" = "basic" }', "letters, digits"),
        ('subsets = ["mgd"]\nrivals = { x = "basic & " }', "rival 'x': a subset is missing here"),
    ],
)
def test_what_no_catalog_may_say_is_refused(tmp_path: Path, trials: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_catalog(small_catalog(tmp_path, (SUBSETS, trials)))


def test_records_of_earlier_versions_are_read(place: Path) -> None:
    directory = run_of(place)
    record = directory / "run.json"
    record.write_text(record.read_text().replace('"everything"', '"clip_filter"'))
    assert "own_clip_filter" in Run.load(directory).catalog.comparison.subsets
    assert as_now({"name": "x"}) == {"name": "x"}


def test_tables_of_earlier_versions_are_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, name = place / "home", run_of(place).name
    new = ("n", "standard_error", "samples", "distinct_samples")
    old = pa.schema([field for field in schemas.EVALUATIONS if field.name not in new])
    rows = read(home, name, "evaluations").drop_columns(["round", *new])
    chosen = read(home, name, "choices")["round"][0].as_py()
    with monkeypatch.context() as patch:
        patch.setitem(schemas.TABLES, "evaluations", old)
        publish(home, name, "evaluations", chosen, rows)
    with connect(home) as connection:
        asked = "SELECT count(*), count(n), count(standard_error), count(mean) FROM comparison"
        (all_rows, n, errors, means), *_ = connection.execute(asked).fetchall()
    assert all_rows == means > 0 == n == errors
    assert all(row["samples"] is not None for row in result_table(home, name) if row["subset"] in ("everything", "mgd"))
    assert write_report(home, name).exists()


def test_without_rounds_the_recipe_is_trained_and_tested_once(tmp_path: Path, trainings: list[int]) -> None:
    catalog = small_catalog(tmp_path, *SHORT, ("rounds = 2", "rounds = 0"), (SUBSETS, ""))
    directory = curate_plainly(catalog, tmp_path / "home")
    assert trainings == [4] and not list(directory.glob("work/round-*"))
    (row,) = result_table(tmp_path / "home", directory.name)
    assert (row["subset"], row["samples"]) == ("everything", 240) and 0 <= row["fashion acc1"] <= 1
    assert "everything" in summary(tmp_path / "home", directory.name)
    assert directory.name in format_runs(tmp_path / "home")
    page = write_report(tmp_path / "home", directory.name).read_text()
    assert "everything is the best" in page and "asks for no round" in page and "metagradient descent chose" not in page


def test_a_catalogs_own_list_is_compared_without_rounds_too(tmp_path: Path) -> None:
    catalog = small_catalog(tmp_path, *SHORT, ("rounds = 2", "rounds = 0"))
    directory = curate_plainly(catalog, tmp_path / "home")
    rows = {row["subset"]: row for row in result_table(tmp_path / "home", directory.name)}
    assert rows["mgd"]["name"] == "starting counts (no round)"
    assert rows["random"]["fashion acc1"] == rows["mgd"]["fashion acc1"] == rows["everything"]["fashion acc1"]
    assert "Nothing descended" in write_report(tmp_path / "home", directory.name).read_text()
