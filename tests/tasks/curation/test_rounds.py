"""A small curation from end to end, as plain calls: same bytes again, after a kill, under another plan."""

from __future__ import annotations

import pickle
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from mgd_core.descent.steps import mask
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.training.order import DataOrder
from mgd_core.training.streams import REPLICATES
from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.catalog.device_options import on_device
from tasks.catalog.recipe_options import RuntimeOptions
from tasks.curation import comparison, estimate, rounds
from tasks.curation.begin import begin_run, identity
from tasks.curation.comparison import ComparisonError
from tasks.export.exports import verify_datacomp
from tasks.modality import registry
from tasks.modality.pairs.modality import PairModality
from tasks.modality.registry import open_recipe
from tasks.modality.tensor_files import publish_tensors
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions, EmptyPool
from tasks.runs.run import Run, RunMismatch
from tasks.tables.published import read
from tasks.tables.uids import uid_bytes
from testing.children import CHILDREN
from testing.count_scales import summed
from testing.small_catalog import begun, curate_plainly, published, small_catalog


@pytest.fixture(scope="module")
def finished(curated_small: Path) -> Path:
    """The finished run, to be read."""
    return curated_small


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, in a home of the test's own."""
    shutil.copytree(finished.parents[1], tmp_path / "copy")
    return tmp_path / "copy" / "runs" / finished.name


def test_every_table_is_there_and_makes_sense(finished: Path) -> None:
    home, run = finished.parents[1], finished.name
    assert read(home, run, "samples").num_rows == 240
    row = read(home, run, "rounds", 0).to_pylist()[0]
    assert (row["reverse_steps"], row["peak_states"], row["advances"]) == (4, 4, 3)
    assert row["raised"] == row["lowered"] > 0
    g = read(home, run, "metagradients", 0)
    probed = g["probed"].to_numpy()
    assert 80 < probed.sum() < 160 and (g["g"].to_numpy()[~probed] == 0).all()
    before, after = (read(home, run, "counts", r)["count"].to_numpy() for r in (0, 1))
    moved = after - before
    assert (before == 1).all() and moved.sum() == 0 and (moved[~probed] == 0).all()
    assert g["g"].to_numpy()[moved > 0].max() < g["g"].to_numpy()[moved < 0].min()
    assert read(home, run, "rounds").num_rows == 3
    compared = {"everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"}
    assert set(read(home, run, "evaluations")["subset"].to_pylist()) == compared


def test_the_subset_file_holds_the_chosen_counts(finished: Path) -> None:
    home, run = finished.parents[1], finished.name
    chosen = read(home, run, "choices")["round"][0].as_py()
    counts = read(home, run, "counts", chosen)
    report = verify_datacomp(finished / "subset.npy", counts["uid"])
    assert report.records == counts["count"].to_numpy().sum()
    records = np.load(finished / "subset.npy")
    assert records.dtype == np.dtype("u8,u8") and (np.sort(records) == records).all()


def test_a_repeated_run_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = curate_plainly(small_catalog(tmp_path), tmp_path / "home")
    assert published(again) == published(finished)


def test_killed_at_any_instant_the_same_command_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    catalog, home = small_catalog(tmp_path, ("rounds = 2", "checkpoint_steps = 1\nrounds = 2")), tmp_path / "home"
    for milestone in ("work/round-000/states/reverse.safetensors", "work/round-001/probe-shards-00001-tar-*.json"):
        process = CHILDREN.Process(target=curate_plainly, args=(catalog, home))
        process.start()
        deadline = time.monotonic() + 120
        while not list(home.glob(f"runs/*/{milestone}")):
            assert process.is_alive() and time.monotonic() < deadline, f"ended before {milestone}"
            time.sleep(0.01)
        process.kill()
        process.join()
    assert published(curate_plainly(catalog, home)) == published(finished)


def test_plan_and_slots_change_no_bit(finished: Path, tmp_path: Path) -> None:
    plan = 'plan = "segments"\nslots = 1\ndisk_states = 2\nrounds = 2'
    catalog = small_catalog(tmp_path, ("rounds = 2", plan))
    other = curate_plainly(catalog, tmp_path / "home")
    row = read(tmp_path / "home", other.name, "rounds", 0).to_pylist()[0]
    assert (row["peak_states"], row["advances"]) == (1, 4)
    assert not list(other.glob("work/*/states")), "states go when their round is done"
    for table in ("metagradients", "counts", "evaluations"):
        mine = read(tmp_path / "home", other.name, table).to_pylist()
        assert mine == read(finished.parents[1], finished.name, table).to_pylist()


def test_a_pool_decoded_batch_by_batch_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    runtime = 'threads = 1\nreaders = 3\ndecoded_disk = 0\nbatch_cache = "200KB"'
    other = curate_plainly(small_catalog(tmp_path, ("threads = 1", runtime)), tmp_path / "home")
    assert published(other) == published(finished)
    assert not list((tmp_path / "home" / "pools").glob("*/decoded-*"))


def test_shard_layout_changes_results_by_rounding_only(finished: Path, tmp_path: Path) -> None:
    other = curate_plainly(small_catalog(tmp_path, ("shard_size = 100", "shard_size = 37")), tmp_path / "home")
    g = [read(d.parents[1], d.name, "metagradients", 0)["g"].to_numpy() for d in (finished, other)]
    np.testing.assert_allclose(g[0], g[1], rtol=2e-4, atol=2e-4)


def test_the_path_surrogate_scores_what_was_visited(tmp_path: Path) -> None:
    catalog = small_catalog(
        tmp_path,
        ("probe_steps = [4, 6]", 'surrogate = "path"'),
        ("rounds = 2", "rounds = 1"),
        ('subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]', 'subsets = ["mgd"]'),
    )
    directory = curate_plainly(catalog, tmp_path / "home")
    table = read(tmp_path / "home", directory.name, "metagradients", 0)
    visits, probed, g = (table[name].to_numpy() for name in ("visits", "probed", "g"))
    assert visits.sum() == 4 * 32 and (probed == (visits > 0)).all() and (g[~probed] == 0).all() and g.any()


def test_a_run_begun_under_other_settings_is_not_continued(tmp_path: Path) -> None:
    catalog, home = small_catalog(tmp_path), tmp_path / "home"
    options = load_catalog(catalog)
    pool = build_pool(str(options.pool.source), home, options.pool.build_options())
    directory = begin_run(home, catalog, pool).directory
    record = directory / "run.json"
    record.write_text(record.read_text().replace('"threads":1', '"threads":7').replace('"threads": 1', '"threads": 7'))
    with pytest.raises(RunMismatch, match="threads was 7, is 1"):
        begin_run(home, catalog, pool)


def test_a_diverging_training_stops_and_says_where(tmp_path: Path) -> None:
    catalog = small_catalog(tmp_path, ("learning_rate = 2e-3", "learning_rate = 1e30"))
    with pytest.raises(NonFiniteError, match=r"at step .*Lower the learning rate"):
        curate_plainly(catalog, tmp_path / "home")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('classes = "label"', 'classes = "lable"', "no column 'lable'; there are"),
        ('split = "target"', 'split = "targets"', "no such split; there are"),
        ('classes = "label"', 'classes = "truth_text"', "at least two classes"),
    ],
)
def test_a_target_without_classes_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        curate_plainly(small_catalog(tmp_path, (old, new)), tmp_path / "home")


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    from tasks.files.source_patterns import SourceError

    empty = tmp_path / "tars"
    empty.mkdir()
    with pytest.raises((EmptyPool, SourceError)):
        build_pool(str(empty), tmp_path / "home")


def test_an_oracle_without_truth_is_refused(tmp_path: Path) -> None:
    catalog, home = small_catalog(tmp_path), tmp_path / "home"
    table = pq.read_table(tmp_path / "sheet" / "table.parquet")
    pq.write_table(table.drop_columns(["truth_clean"]), tmp_path / "sheet" / "table.parquet")
    directory = begun(catalog, home)
    with open_recipe(directory) as recipe:
        estimate.publish_pool(recipe)
    with pytest.raises(ComparisonError, match="Remove 'oracle'"):
        comparison.train_subset(directory, "oracle", 2, 0)


def test_finished_units_are_not_run_again(copied: Path) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in copied.glob("work/round-000/*")}

    before = written()
    rounds.train_round(copied, 0, True)
    rounds.probe_shard(copied, 0, rounds.shard_names(copied)[0])
    assert len(before) > 2 and written() == before


def test_the_next_shards_of_a_process_do_no_work_that_grows_with_the_pool(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool is opened for the first shard alone; of a shard's unit are the uids of its shard, and a few bytes."""
    opened, masked = Counter[str](), list[int]()
    plain_open, plain_mask = PairModality.open, rounds.mask

    def counted_open(self: PairModality, run: Run) -> object:
        opened[run.id] += 1
        return plain_open(self, run)

    def counted_mask(uids: np.ndarray, *how: object) -> object:
        masked.append(len(uids))
        return plain_mask(uids, *how)

    def never(*_: object) -> None:
        raise AssertionError("a unit asked for the counts of the whole pool")

    monkeypatch.setattr(PairModality, "open", counted_open)
    monkeypatch.setattr(rounds, "mask", counted_mask)
    monkeypatch.setattr(rounds, "counts_of", never)
    for record in copied.glob("work/round-000/probe-*"):
        record.unlink()
    for kept in (registry._opened, rounds._probes):
        kept.cache_clear()
    first, *others = rounds.shard_names(copied)
    rounds.probe_shard(copied, 0, first)
    assert opened.total() == 1
    for shard in others:
        rounds.probe_shard(copied, 0, shard)
        assert len(pickle.dumps((copied, 0, shard))) < 500 + len(str(copied))
    with open_recipe(copied) as recipe:
        assert opened.total() == 1 and sum(masked) == len(recipe), "each uid once"
    assert len(others) == 2 and len(list(copied.glob("work/round-000/probe-*.json"))) == 3


def test_which_of_several_devices_it_is_changes_neither_the_run_nor_a_byte(finished: Path, tmp_path: Path) -> None:
    catalog = small_catalog(tmp_path, ("threads = 1", 'threads = 1\ndevices = ["cpu:3", "cpu:1"]'))
    with on_device("cpu:1"):
        directory = curate_plainly(catalog, tmp_path / "home")
    assert directory.name == finished.name and published(directory) == published(finished)
    options = load_catalog(catalog)
    for first, other in (("cuda:0", "cuda:1"), ("cuda", "cuda:7")):
        runtimes = [RuntimeOptions.model_validate({"device": one}) for one in (first, other)]
        said = [identity(options.model_copy(update={"runtime": one}), tmp_path) for one in runtimes]
        assert said[0] == said[1] != identity(options, tmp_path), "the kind of device is another run"


def test_a_round_that_an_earlier_version_replayed_is_probed_the_same(copied: Path) -> None:
    """It left no batches: they are found by the order of the whole pool."""
    replayed = copied / "work" / "round-000" / "replayed.safetensors"
    tensors = load_file(replayed)
    left = {name: x for name, x in tensors.items() if not name.startswith("batch.")}
    assert len(tensors) - len(left) == 2
    name = rounds.shard_names(copied)[1]
    (record,) = copied.glob("work/round-000/probe-shards-00001-tar-*.json")
    before = record.with_suffix(".safetensors").read_bytes()
    for kept in (tensors, left):
        publish_tensors(replayed, kept)
        rounds._probes.cache_clear()
        record.unlink()
        record.with_suffix(".safetensors").unlink()
        assert rounds.probe_shard(copied, 0, name) == record
        assert record.with_suffix(".safetensors").read_bytes() == before


def test_a_probe_asks_for_its_shard_only(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the order of the pool nor the samples of another shard."""
    seen: list[int] = []
    plain = rounds.mask
    monkeypatch.setattr(rounds, "mask", lambda uids, *rest: seen.append(len(uids)) or plain(uids, *rest))
    monkeypatch.setattr(DataOrder, "table", None)
    rounds._probes.cache_clear()
    for record in copied.glob("work/round-000/probe-*.json"):
        record.unlink()
    for name in rounds.shard_names(copied):
        rounds.probe_shard(copied, 0, name)
    assert seen == [100, 100, 40]


def test_shards_of_equal_names_in_two_folders_are_each_probed(tmp_path: Path) -> None:
    made = build_pool(str(small_catalog(tmp_path).parent / "sheet"), tmp_path / "made", BuildOptions(shard_size=120))
    for folder, shard in zip(("a", "b"), sorted((made.directory / "shards").iterdir()), strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(shard, tmp_path / folder / "00000.tar")
    catalog = small_catalog(tmp_path, ('source = "sheet"\nshard_size = 100', 'source = ["a", "b"]'))
    home, options = tmp_path / "home", load_catalog(catalog)
    pool = build_pool(options.pool.sources, home, options.pool.build_options())
    directory = begin_run(home, catalog, pool).directory
    estimate.prepare(directory)
    rounds.train_round(directory, 0, True)
    names = rounds.shard_names(directory)
    assert names == ["a/00000.tar", "b/00000.tar"], "they are told apart in every table"
    records = [rounds.probe_shard(directory, 0, name) for name in names]
    rounds.finish_round(directory, 0, records)
    uids, probed = (read(home, directory.name, "metagradients", 0)[name] for name in ("uid", "probed"))
    assert probed.to_numpy().tolist() == mask(uid_bytes(uids), 0, 0, 0.5).tolist()
    with pytest.raises(AssertionError, match="each masked sample once"):
        rounds.finish_round(directory, 0, [records[0], records[0]])


def test_summed_gradients_by_hand() -> None:
    g = [np.array([1.0, 0.0, -3.0]), np.array([2.0, 5.0, 3.0])]
    np.testing.assert_allclose(summed(g, [0.5, 1.0], False), [2.5, 5.0, 1.5])
    one = np.array([0.3, -2.0, 0.01, 7.0])
    assert (np.argsort(summed([one], [1.0], True)) == np.argsort(one)).all()
    steady, erratic = summed([np.array([1.0, 9.0]), np.array([1.0, -7.0])], [1.0, 1.0], True)
    assert steady > erratic


def test_a_round_may_lower_a_part_of_the_target_another_each_time(tmp_path: Path) -> None:
    made = []
    for name, said in (("plain", ()), ("drawn", (('rule = "exchange"', 'rule = "exchange"\ntarget_share = 0.5'),))):
        (tmp_path / name).mkdir()
        made.append(begun(small_catalog(tmp_path / name, *said), tmp_path / name / "home"))
    plain, drawn = made
    assert plain.name != drawn.name
    with open_recipe(drawn) as recipe:
        learner, state = recipe.learner()
        whole = recipe.targets(learner).target
        parts = [recipe.lowered(learner, round) for round in (0, 0, 1)]
        losses = [part.score(state.theta).loss for part in parts]
        assert [part.size for part in parts] == [20, 20, 20] and whole.size == 40
        assert losses[0] == losses[1] != losses[2]
    with open_recipe(plain) as recipe:
        assert recipe.lowered(recipe.learner()[0], 0).size == 40


@pytest.mark.parametrize("surrogate", ["probe", "path"])
def test_g_of_replicates_is_the_mean_of_single_trainings_from_their_seeds(surrogate: str, tmp_path: Path) -> None:
    """The second of two replicates is a run of its own with that seed, where every sample is probed."""
    found: dict[str, np.ndarray] = {}
    for name, said in (("both", "replicates = 2"), ("first", "seed = 0"), ("second", f"seed = {REPLICATES}")):
        (tmp_path / name).mkdir()
        changes = [("rounds = 2", f"rounds = 1\n{said}"), ("p = 0.5", "p = 1.0")]
        if surrogate == "path":
            changes.append(("probe_steps = [4, 6]", 'surrogate = "path"'))
        catalog, home = small_catalog(tmp_path / name, *changes), tmp_path / name / "home"
        directory = begun(catalog, home)
        with open_recipe(directory) as recipe:
            estimate.publish_pool(recipe)
        for replicate in range(2 if name == "both" else 1):
            rounds.train_round(directory, 0, True, replicate)
        shards = rounds.shard_names(directory) if surrogate == "probe" else []
        rounds.finish_round(directory, 0, [rounds.probe_shard(directory, 0, shard) for shard in shards])
        table = read(home, directory.name, "metagradients", 0)
        found[name], found[f"{name} error"] = (table[one].to_numpy() for one in ("g", "g_error"))
    pair = np.stack([found["first"], found["second"]])
    np.testing.assert_allclose(found["both"], pair.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["both error"], np.abs(pair[0] - pair[1]) / 2, rtol=1e-9, atol=1e-15)
