"""Studies: what a catalog may say, and attribution and prediction as plain calls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.catalog.catalogs import CatalogError
from tasks.catalog.files import STUDIES, find_study
from tasks.catalog.study_options import load_study
from tasks.modality.classification.modality import begin_study
from tasks.modality.registry import open_study
from tasks.runs.run import RunMismatch
from tasks.studies import attribution
from tasks.studies.prediction import format_prediction, latest_study, predict
from tasks.tables.queries import QueryError, connect
from testing.small_study import small_study


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("width = 8", "width = 8\ndropout = 0.1"), "dropout = 0.1: activations dropped at random destroy"),
        (("points = 3", "points = 7"), "schedule.points = 7: more control points than the training's 6 steps"),
        (("side = 8", "sides = 8"), "unknown key 'data.sides'; did you mean 'side'?"),
        (("steps = 6\n", ""), "key 'learner.steps' is missing"),
        (("pools/fashion", "pools/nowhere"), "is not there"),
        (('where = "truth_clean"', 'where = "clean"'), "no column 'clean'; the sheet has"),
        (('name = "small"', 'name = "small"\n='), "not valid TOML"),
        (("width = 8", 'width = 8\nkind = "vit"\npatch = 3'), "8 pixels need a patch that divides them"),
        (("side = 8", 'side = 7\n[model]\nkind = "resnet9"\n'), ""),
    ],
)
def test_bad_catalogs_are_refused(change: tuple[str, str], message: str, tmp_path: Path):
    changes = [change]
    if not message:
        changes, message = [*changes, ("[model]\nwidth = 8", "width = 8")], "7 pixels are no multiple of 8"
    with pytest.raises(CatalogError, match=message.replace("?", r"\?")):
        directory = begin_study(tmp_path / "home", small_study(tmp_path, *changes))
        with open_study(directory) as study:
            study.learner()


def test_studies_that_come_along_can_be_found():
    for path in STUDIES.glob("*.toml"):
        assert load_study(find_study(path.stem)).name == path.stem
    with pytest.raises(CatalogError, match="no study 'nothing': neither a file nor one of"):
        find_study("nothing")


def test_a_target_without_samples_is_refused(tmp_path: Path):
    directory = begin_study(tmp_path / "home", small_study(tmp_path, ("target_examples = 60", "target_examples = 3")))
    with pytest.raises(ValueError, match="have no test sample among 3"):
        attribution.sweep_outputs(directory, 0)


@pytest.fixture(scope="module")
def attributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("study")
    directory = begin_study(tmp / "home", small_study(tmp))
    for number in attribution.sweeps(directory):
        attribution.sweep_outputs(directory, number)
    attribution.publish_influences(directory)
    for unit in attribution.retrainings(directory):
        attribution.retrain(directory, *unit)
    attribution.publish_validation(directory)
    return directory


def test_sweeps_are_parts_of_one(attributed: Path, tmp_path: Path):
    """Ten outputs, four a sweep: as one at a time, to rounding of float32."""
    with open_study(attributed) as study:
        g, phi = attribution.load_influences(study)
    assert g.shape == (10, 60) and phi.shape == (10,)
    one = begin_study(tmp_path / "home", small_study(tmp_path, ("together = 4", "together = 1")))
    assert list(attribution.sweeps(one)) == list(range(10))
    attribution.sweep_outputs(one, 3)
    (path,) = one.glob("work/attribution/*-sweep-003.safetensors")
    single = attribution.load_file(path)
    assert np.allclose(single["g"][0], g[3], rtol=1e-3, atol=1e-6) and np.allclose(single["phi"][0], phi[3])


def test_tables_answer_in_sql(attributed: Path):
    with connect(attributed.parents[1], attributed.name) as connection:
        extremes = connection.sql("select * from influence_extremes where place = 1").fetchall()
        rows = connection.sql("select output, score, low, high from datamodelling_scores").fetchall()
        drops = connection.sql("select count(*), sum(predicted) from drops where share = 0.1").fetchall()[0]
    assert len(extremes) == 20 and drops[0] == 120
    assert [name for name, *_ in rows][-1] == "mean" and all(low <= high for *_, low, high in rows)


def test_prediction_is_the_sum_of_influences_and_the_truth_is_a_training(attributed: Path):
    home = attributed.parents[1]
    assert latest_study(home, None) == attributed
    query = "select uid from influences where label = 'boot'"
    found = predict(attributed, query, train=True)
    with open_study(attributed) as study:
        g, _ = attribution.load_influences(study)
        boots = study.train.labels == study.classes.index("boot")
    assert found.dropped == int(boots.sum()) and found.measured is not None and found.accuracies is not None
    assert np.allclose(found.predicted, -g[:, boots].double().sum(1).numpy())
    assert found.predicted[found.outputs.index("boot")] > 0 and found.measured[found.outputs.index("boot")] > 0
    assert "predicted" in format_prediction(found) and "accuracy on the test split" in format_prediction(found)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select label from influences", "needs a column uid"),
        ("select uid from influences where false", "selects 0 samples"),
        ("select uid from influences", "selects 60 samples; name 1 to 59"),
        ("select uid from nothing", "nothing does not exist"),
        ("select 'ff'::varchar || repeat('0', 30) as uid", "1 of them no training sample"),
    ],
)
def test_questions_that_cannot_be_answered(attributed: Path, query: str, message: str):
    with pytest.raises(QueryError, match=message):
        predict(attributed, query, train=False)


def test_a_home_without_a_study_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(QueryError, match="`mgd attribute fashion` makes one"):
        latest_study(tmp_path, None)


def test_a_study_begun_with_other_versions_is_not_gone_on_with(tmp_path: Path):
    path = small_study(tmp_path)
    record = begin_study(tmp_path / "home", path) / "study.json"
    begun = json.loads(record.read_text())
    record.write_text(json.dumps(begun | {"versions": begun["versions"] | {"numpy": "0.1"}}))
    with pytest.raises(RunMismatch, match=r"numpy was '0\.1'"):
        begin_study(tmp_path / "home", path)
