"""Smoothness of a real, tiny recipe: against plain trainings, after interruptions, the menu, the table and the bar."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file

from mgd_core.analysis.attribution import drop_sets, scores
from mgd_core.analysis.smoothness import direction, reweighted, score
from mgd_core.engine.replay import replay, train
from mgd_core.plans.plan import keep_all
from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.catalog.smoothness_options import MenuOptions, SmoothnessOptions
from tasks.curation import rounds
from tasks.curation.begin import begin_run
from tasks.files.package_data import CATALOGS
from tasks.files.progress import watch
from tasks.modality.registry import open_recipe
from tasks.pool.pools import build_pool
from tasks.smoothness import lds as smoothness_lds
from tasks.smoothness import measuring as smoothness
from tasks.smoothness import metagradient_check
from tasks.smoothness.menu import OWN, Variant, applied, variants
from tasks.smoothness.table import NotSmooth, check_bar, format_summaries, own_score, summaries
from tasks.tables.published import publish, read
from tasks.tables.queries import connect
from testing.small_catalog import small_catalog

SECTION = """[smoothness]
bar = 0.5
[smoothness.menu]
learning_rate = [1e30]
window_start = [6]
[comparison]"""
CHANGES = (("window_start = 4\n", "window_start = 2\n"), ("[comparison]", SECTION))


def begun(place: Path, *changes: tuple[str, str]) -> Path:
    """The run directory of a small catalog on its pool."""
    return begun_by(small_catalog(place, *changes))


def begun_by(catalog: Path) -> Path:
    options, home = load_catalog(catalog), catalog.parent / "home"
    pool = build_pool(str(options.pool.source), home, options.pool.build_options())
    return begin_run(home, catalog, pool).directory


@pytest.fixture(scope="module")
def options() -> SmoothnessOptions:
    return SmoothnessOptions(menu=MenuOptions(learning_rate=(1e30,), window_start=(6,)))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, options: SmoothnessOptions) -> Path:
    """A run whose sweep is measured and published; tests change copies of it."""
    directory = begun(tmp_path_factory.mktemp("smooth"), *CHANGES)
    for variant in smoothness.prepare(directory, options, sweep=True):
        for number in range(options.directions):
            smoothness.measure_direction(directory, variant, number, options.h)
        smoothness.forget_states(directory, variant)
    smoothness.publish_smoothness(directory, options)
    metagradient_check.check_metagradient(directory, options)
    return directory


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> Path:
    """A copy of it, in a home of the test's own."""
    shutil.copytree(template.parents[1], tmp_path / "copy")
    return tmp_path / "copy" / "runs" / template.name


def test_lds_is_the_rank_correlation_of_whole_trainings_with_their_prediction(tmp_path: Path) -> None:
    directory = begun(tmp_path, CHANGES[0])
    asked = SmoothnessOptions(lds_subsets=4, lds_share=0.1)
    (own,) = smoothness.prepare(directory, asked, sweep=False)
    for number in range(asked.directions):
        smoothness.measure_direction(directory, own, number, asked.h)
    smoothness_lds.measure_lds(directory, own, asked)
    smoothness.publish_smoothness(directory, asked)
    rows = read(tmp_path / "home", directory.name, "smoothness", 0).to_pylist()
    with open_recipe(directory) as bench:
        learner, state = bench.learner(np.ones(240, np.int64), 0)
        target = bench.targets(learner).target
        g = replay(learner, state, target.target, keep_all(2, 8), 240).example.numpy()
        before = target.score(train(learner, state)[0].theta).loss
        drops = drop_sets(240, 0.1, 4, 0)
        ends = [train(reweighted(learner, torch.from_numpy(-1.0 * d).float(), 2), state)[0].theta for d in drops]
        true = [target.score(theta).loss - before for theta in ends]
    expected = scores(np.array([[-g[d].sum()] for d in drops]), np.array(true)[:, None])[0]  # ties: float32 losses
    assert [row["lds"] for row in rows] == [pytest.approx(expected)] * 2
    assert "LDS" in format_summaries(summaries(tmp_path / "home", directory.name))


def test_a_direction_is_that_of_three_whole_trainings(finished: Path, options: SmoothnessOptions) -> None:
    row = read(finished.parents[1], finished.name, "smoothness", 0).to_pylist()[1]
    with open_recipe(finished) as bench:
        learner, state = bench.learner(np.ones(240, np.int64), 0)
        v = options.h * direction(240, 0, 1)
        ends = [train(reweighted(learner, k * v, 2), state)[0].theta for k in (0, 1, 2)]
        target = bench.targets(learner).target
        losses = [target.score(theta).loss for theta in ends]
    assert (row["variant"], row["direction"], row["h"], row["failure"]) == ("as it is", 1, 0.1, "")
    assert row["score"] == score(*ends) and 0.5 < row["score"] < 1
    assert row["target_loss"] == losses[0]
    assert row["curvature"] == pytest.approx(abs(losses[2] - 2 * losses[1] + losses[0]) / 0.01)


def test_the_metagradient_is_round_0s_and_foretells_the_directions(finished: Path, options: SmoothnessOptions) -> None:
    check = metagradient_check.load_check(finished)
    trained = {path: path.stat().st_mtime_ns for path in finished.glob("work/round-000/replayed.*")}
    g = load_file(rounds.train_round(finished, 0, True).with_suffix(".safetensors"))["example"]
    assert len(trained) == 2 and all(path.stat().st_mtime_ns == at for path, at in trained.items()), "not run again"
    assert check.failure == "" and check.largest == np.abs(g).max() > check.median > 0
    assert check.predicted[1] == pytest.approx(0.1 * g @ direction(240, 0, 1).numpy(), rel=1e-6)
    assert len(check.true) == 2 and "largest |g|" in metagradient_check.format_check(check)


def test_a_variant_that_diverges_is_a_row_with_its_reason(finished: Path) -> None:
    own, later, broken = summaries(finished.parents[1], finished.name)
    assert [s.variant for s in (own, broken, later)] == ["as it is", "learning_rate = 1e+30", "window_start = 6"]
    assert broken.score is None and "Lower the learning rate" in broken.failure
    assert own.score is not None and own.lowest <= own.score <= own.highest and later.movement < own.movement
    scores = [row["score"] for row in read(finished.parents[1], finished.name, "smoothness", 0).to_pylist()[:2]]
    assert own.score == np.mean(scores) and (own.lowest, own.highest) == (min(scores), max(scores))
    shown = format_summaries([own, broken, later]).splitlines()
    assert len(shown) == 4 and f"{own.heldout_accuracy:.3f}" in shown[1] and "nan" in shown[2]


def finish_first_round(directory: Path) -> None:
    rounds.train_round(directory, 0, True)
    rounds.finish_round(directory, 0, [rounds.probe_shard(directory, 0, s) for s in rounds.shard_names(directory)])


def test_sql_sees_it_and_so_does_the_row_of_round_0(finished: Path) -> None:
    home, run = finished.parents[1], finished.name
    finish_first_round(finished)
    with connect(home, run) as connection:
        entered = connection.execute("SELECT round, smoothness FROM rounds_summary").fetchall()
        found = connection.execute("SELECT variant, directions, score FROM smoothness_summary").fetchall()
        undocumented = connection.execute(
            """SELECT count(*) FROM columns WHERE table_name LIKE 'smoothness%' AND doc = ''"""
        )
        assert undocumented.fetchall() == [(0,)]
    assert entered == [(0, pytest.approx(own_score(home, run)))]
    assert found[0] == ("as it is", 2, pytest.approx(own_score(home, run))) and found[2][2] is None


def test_finished_units_are_not_run_again_and_lost_states_are_made_again(
    finished: Path, options: SmoothnessOptions
) -> None:
    record = smoothness.measure_direction(finished, OWN, 1, options.h)
    before = record.read_bytes()
    record.unlink()  # its states were removed with `forget_states`
    assert smoothness.measure_direction(finished, OWN, 1, options.h).read_bytes() == before
    told: list[str] = []
    watch(lambda what, *_: told.append(what))
    try:
        smoothness.measure_direction(finished, OWN, 0, options.h)
        smoothness.train_base(finished, OWN)
    finally:
        watch(None)
    assert not told, "no training told its progress"


def test_bar_and_menu_change_no_run(finished: Path, tmp_path: Path) -> None:
    assert begun(tmp_path, CHANGES[0]).name == finished.name


def test_the_menu_turns_what_it_says(finished: Path) -> None:
    menu = MenuOptions(
        eps_root=(0.0, 1e-8),
        batch=(16,),
        logit_scale=(5.0,),
        width=(0.5, 2),
        model={"text_cfg.qk_norm": (True,), "text_cfg.pool_type": ("argmax", "last")},
    )
    with open_recipe(finished) as bench:
        found = {v.name: applied(bench, v) for v in variants(bench, menu)}
        assert list(found)[:3] == ["eps_root = 0", "batch = 16", "logit_scale = 5"], "what the catalog has is left out"
        assert found["eps_root = 0"].catalog.learner == bench.catalog.learner.model_copy(update={"eps_root": 0.0})
        widths = [found[f"width = {f}"].model_config["text_cfg"] for f in ("0.5", "2")]
        assert [(c["width"], c["heads"]) for c in widths] == [(16, 1), (64, 4)]
        assert found["text_cfg.qk_norm = true"].model_config["text_cfg"]["qk_norm"] is True
        learner, state = found["logit_scale = 5"].learner(np.ones(240, np.int64), 0)
        scale = learner.layout.unflatten(state.theta)["logit_scale"]
        assert float(scale) == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    ("menu", "message"),
    [
        (MenuOptions(model={"text_cfg.colour": (1,)}), "open_clip reads no 'colour'"),
        (MenuOptions(model={"qk_norm": (True,)}), "write vision_cfg.KEY or text_cfg.KEY"),
        (MenuOptions(model={"text_cfg.context_length": (5,)}), "make it another catalog"),
        (MenuOptions(batch=(1000,)), "240 pairs only"),
    ],
)
def test_a_menu_that_cannot_be_had_is_refused(finished: Path, menu: MenuOptions, message: str) -> None:
    with open_recipe(finished) as bench, pytest.raises(CatalogError, match=message):
        variants(bench, menu)


def test_a_menu_of_keys_that_timms_towers_do_not_read_is_refused(tmp_path: Path) -> None:
    catalog = small_catalog(tmp_path)
    shutil.copy(CATALOGS / "models" / "fashion.json", tmp_path / "model.json")
    with (
        open_recipe(begun_by(catalog)) as recipe,
        pytest.raises(CatalogError, match=r"open_clip reads no 'qk_norm'.*timm_po"),
    ):
        variants(recipe, MenuOptions(model={"vision_cfg.qk_norm": (True,)}))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("bar = 1.5", "smoothness.bar"),
        ("bra = 0.5", "did you mean 'bar'"),
        ("directions = 1", "smoothness.directions"),
        ("[smoothness.menu]\nwindow_start = [9, 64]", r"window_start \[64\].* go beyond the training"),
        ("[smoothness.menu]\nwarmpu = [1]", "did you mean 'warmup'"),
        ('[smoothness.menu]\neps_root = [0.0]\n[learner]\noptimizer = "sgd"', "'sgd' has none"),
    ],
)
def test_a_section_with_mistakes_is_explained(tmp_path: Path, section: str, message: str) -> None:
    text = (CATALOGS / "fashion.toml").read_text()
    head, _, learner = text.partition("[learner]\n")
    section, _, optimizer = section.partition("[learner]\n")
    path = tmp_path / "mine.toml"
    path.write_text(f"{head}[learner]\n{optimizer}\n{learner}\n[smoothness]\n{section}\n")
    with pytest.raises(CatalogError, match=message):
        load_catalog(path)


def published_rows(home: Path, **scores: float | None) -> None:
    rows = [
        {
            "variant": "as it is" if name == "own" else name.replace("__", " = "),
            "direction": d,
            "h": 0.1,
            "score": None if score is None else score + 0.01 * d,
            **{name: None if score is None else 1.0 for name in ("curvature", "movement", "target_loss")},
            "heldout_accuracy": None if score is None else 0.75,
            "failure": "" if score is not None else "the training loss became nan at step 3.",
            "lds": None,
        }
        for name, score in scores.items()
        for d in (0, 1)
    ]
    publish(home, "r-1", "smoothness", 0, pa.Table.from_pylist(rows))


def test_the_bar(tmp_path: Path) -> None:
    catalog = load_catalog(small_catalog(tmp_path, *CHANGES))
    published_rows(tmp_path, own=0.495)
    check_bar(tmp_path, "r-1", catalog)  # the mean, 0.5, reaches it
    published_rows(tmp_path, own=0.3)
    with pytest.raises(
        NotSmooth, match=r"S = 0.305 \(0.300 .. 0.310 .*bar of 0.5.*larger learner.eps_root \(now 1e-08\)"
    ):
        check_bar(tmp_path, "r-1", catalog)
    published_rows(tmp_path, own=0.3, eps_root__1=0.6, batch__64=0.8, warmup__0=0.1, width__9=None)
    with pytest.raises(
        NotSmooth, match=r"favours batch = 64 .S 0.805, held-out accuracy 0.750.; eps_root = 1 .S"
    ) as told:
        check_bar(tmp_path, "r-1", catalog)
    assert "warmup" not in str(told.value) and "width" not in str(told.value)
    published_rows(tmp_path, own=0.3, warmup__0=0.1)
    with pytest.raises(NotSmooth, match="No other value of the ablation is smoother"):
        check_bar(tmp_path, "r-1", catalog)
    published_rows(tmp_path, own=None)
    with pytest.raises(NotSmooth, match="has no metasmoothness: the training loss became nan"):
        check_bar(tmp_path, "r-1", catalog)
    unset = catalog.model_copy(update={"smoothness": SmoothnessOptions()})
    check_bar(tmp_path, "r-1", unset)
    assert Variant("text_cfg.x", True).name == "text_cfg.x = true"
