"""A small curation towards three tasks: scores in units of round 0, g by task that adds up, views and the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.curation.begin import identity
from tasks.curation.estimate import describe_plans
from tasks.curation.multitask.wanted import cost_of
from tasks.modality.pairs.multitask.loading import load_targets
from tasks.report.reports import write_report
from tasks.tables.published import read
from tasks.tables.queries import connect
from testing.small_catalog import curate_plainly, published
from testing.small_tasks import WEIGHTS, small_tasks


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tasks")
    return curate_plainly(small_tasks(directory), directory / "home")


def test_losses_are_in_units_of_round_0(finished: Path) -> None:
    home, run = finished.parents[1], finished.name
    scores = read(home, run, "task_scores").to_pylist()
    assert len(scores) == 3 * 3 * 2
    assert {row["metric"] for row in scores} == {"acc1", "mean_recall@1", "mean_average_precision"}
    loss = {(row["round"], row["part"], row["task"]): row["loss"] for row in scores}
    for row in read(home, run, "rounds").to_pylist():
        for part in ("target", "heldout"):
            shares = [w * loss[row["round"], part, task] / loss[0, "target", task] for task, w in WEIGHTS.items()]
            assert row[f"{part}_loss"] == pytest.approx(sum(shares), rel=1e-5)
        values = [
            WEIGHTS[s["task"]] * s["value"] for s in scores if (s["round"], s["part"]) == (row["round"], "target")
        ]
        assert row["target_accuracy"] == pytest.approx(sum(values) / sum(WEIGHTS.values()))
        assert row["temperature"] is None
    assert read(home, run, "rounds")["target_loss"][0].as_py() == pytest.approx(sum(WEIGHTS.values()), rel=1e-5)


def test_g_by_task_adds_up_to_g(finished: Path) -> None:
    home, run = finished.parents[1], finished.name
    for round in (0, 1):
        whole = read(home, run, "metagradients", round)
        each = read(home, run, "task_metagradients", round)
        probed = whole["probed"].to_numpy()
        assert each["task"].to_pylist()[:3] == ["captions", "clothes", "labels"]
        assert each["uid"].to_pylist()[::3] == whole["uid"].filter(whole["probed"]).to_pylist()
        sums = each["g"].to_numpy().reshape(-1, 3).sum(1)
        g = whole["g"].to_numpy()[probed]
        assert np.linalg.norm(sums - g) < 1e-4 * np.linalg.norm(g)
        assert (each["g"].to_numpy().reshape(-1, 3) != 0).any(0).all()


def test_views_and_report_tell_what_each_wants(finished: Path) -> None:
    home, run = finished.parents[1], finished.name
    with connect(home, run) as connection:
        first = connection.execute("SELECT task, place, g FROM wanted_by_task WHERE round = 1 AND place = 1").fetchall()
        least = "SELECT task, min(g) FROM task_metagradients WHERE round = 1 GROUP BY task"
        assert {(task, g) for task, _, g in first} == set(connection.execute(least).fetchall())
        clashes = "SELECT wanted, unwanted, clash, wanted_by <> unwanted_by FROM conflicts"
        for wanted, unwanted, clash, apart in connection.execute(clashes).fetchall():
            assert wanted < 0 < unwanted and clash == min(-wanted, unwanted) and apart
        alike = connection.execute("SELECT task, other, correlation FROM task_similarity WHERE round = 1").fetchall()
        assert len(alike) == 6 and all(-1 <= one[2] <= 1 for one in alike)
    page = write_report(home, run).read_text()
    assert "What each task wants" in page and "Wanted most by “captions”" in page and "hurts" in page
    tests = set(read(home, run, "evaluations")["task"].to_pylist())
    assert tests == {"heldout", *WEIGHTS}


def test_what_is_told_changes_no_round(finished: Path, tmp_path: Path) -> None:
    silent = curate_plainly(small_tasks(tmp_path, ('per_task = "every"', 'per_task = "none"')), tmp_path / "home")
    assert silent.name == finished.name
    told = {path: data for path, data in published(finished).items() if "task_metagradients" not in path}
    assert published(silent) == told and len(told) < len(published(finished))


def test_no_picture_is_in_two_parts(tmp_path: Path) -> None:
    roles = load_targets(load_catalog(small_tasks(tmp_path)).targets, 8)
    assert set(roles.tests) == set(WEIGHTS)
    found = [set(roles.target.identities), set(roles.heldout.identities)]
    found += [{one for test in roles.tests.values() for one in test.identities}]
    assert all(found) and not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
    assert len(roles.target.tasks["captions"].texts) == 2 * len(roles.target.tasks["captions"])
    left = roles.target.only(range(3, len(roles.target)))
    assert len(left.tasks["captions"]) == len(roles.target.tasks["captions"]) - 3, "tasks by name: captions first"


def test_the_cost_is_told_beforehand(finished: Path) -> None:
    told = describe_plans(finished)
    assert "3 cotangents, 2.50 times one" in told and cost_of(8) == 6.25


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight = 2.0", "weight = 0", "targets.tasks.captions.weight.*greater than 0"),
        ("weight = 2.0", "wait = 2.0", "unknown key"),
        ('per_task = "every"', 'per_task = "all"', "targets.per_task"),
        ("[targets.tasks.labels]", '[targets.groups]\nx = ["laabels"]\n[targets.tasks.labels]', "no task 'laabels'"),
        (
            "[targets.tasks.labels]",
            '[targets.groups]\nx = ["labels"]\ny = ["labels"]\n[targets.tasks.labels]',
            "is in x already",
        ),
        (
            "[targets.tasks.labels]",
            '[targets.groups]\nclothes = ["labels"]\n[targets.tasks.labels]',
            "groups.clothes: a task that is not in it has this name",
        ),
        ("[model]", '[targets.target]\nsource = "sheet"\nsplit = "target"\n[model]', "beside tasks"),
        ('classes = "label"', 'classes = "label"\nheldout = "target"', "are both split 'target'"),
        ("weight = 0.5", 'weight = 0.5\nmetric = "acc1"', "`metric` is of no use to a multilabel set"),
        ("[targets.tasks.labels]", "[targets.tasks.heldout]", "not a test"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_targets(load_catalog(small_tasks(tmp_path, (old, new))).targets, 8)


def test_keys_of_many_tasks_are_of_no_use_to_one(tmp_path: Path) -> None:
    from testing.small_catalog import small_catalog

    path = small_catalog(tmp_path, ("[targets.target]", '[targets]\nnormalise = "none"\n[targets.target]'))
    with pytest.raises(CatalogError, match="'normalise' is of use to many tasks only"):
        load_catalog(path)
    without = small_catalog(tmp_path, ('[targets.heldout]\nsource = "sheet"\nsplit = "heldout"\nclasses = "label"', ""))
    with pytest.raises(CatalogError, match="heldout not named"):
        load_catalog(without)


def test_what_a_run_is_known_by(tmp_path: Path) -> None:
    """Weights and units change rounds; groups, tests and the order of tasks do not."""
    known = identity(load_catalog(small_tasks(tmp_path)), tmp_path)
    groups = ("[model]", '[targets.groups]\nsets = ["labels", "captions"]\n[model]')
    grouped = load_catalog(small_tasks(tmp_path, groups))
    assert identity(grouped, tmp_path) == known
    assert grouped.targets.told_by == {"sets": ("labels", "captions"), "clothes": ("clothes",)}
    for change in (("weight = 2.0", "weight = 2.5"), ('per_task = "every"', 'normalise = "none"')):
        assert identity(load_catalog(small_tasks(tmp_path, change)), tmp_path) != known


def test_datacomps_groups_are_the_default_of_many(tmp_path: Path) -> None:
    names = {"a": "imagenet-a", "b": "vtab-pets", "c": "vtab-dtd", "d": "imagenet1k", "e": "mnist", "f": "cifar10"}
    more = "".join(f'[targets.tasks.{name}]\nsource = "wds_{one}_test"\n' for name, one in names.items())
    more += "".join(f'[targets.tasks.own{i}]\nsource = "own{i}"\n' for i in range(3))
    start = "[targets.tasks.labels]"
    told = load_catalog(small_tasks(tmp_path, (start, f"{more}{start}"))).targets.told_by
    assert told["VTAB"] == ("b", "c") and told["ImageNet"] == ("d",) and told["other"] == ("e", "f")
    assert told["own1"] == ("own1",) and told["clothes"] == ("clothes",)
