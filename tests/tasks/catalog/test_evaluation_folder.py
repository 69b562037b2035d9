"""DataComp's tasks as targets: those whose sets lie below a folder, what is told of them and of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.catalog.catalogs import check_sources, load_catalog
from tasks.catalog.evaluation_folder import tasks_below
from tasks.catalog.files import CatalogError
from tasks.catalog.overrides import sources
from tasks.evaluation.eval_samples import EvalSetError
from tasks.files.package_data import CATALOGS
from testing.eval_set_files import npy, write_set

DEBUG = CATALOGS / "datacomp-debug.toml"
SAMPLES = [{"cls": b"0", "png": b"1"}, {"cls": b"1", "png": b"2"}]
FOLDER, IMAGES = "targets.evaluation_sets", "targets.evaluation_images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mnist", "vtab-flowers", "own"):
        write_set(tmp_path / f"wds_{name}_test", SAMPLES, ["a", "b"])
    write_set(tmp_path / "wds_vtab-flowers_test", SAMPLES, ["a", "b"], folder="train")
    write_set(tmp_path / "wds_flickr_1k_test_image_text_retrieval_test", [{"png": b"1", "txt": b"x"}], kind="retrieval")
    cue = {"0.png": b"1", "1.png": b"2", "npy": npy([1, 0]), "txt": b"x"}
    write_set(tmp_path / "wds_winogavil_test", [cue], kind="association")
    return tmp_path


def test_tasks_are_the_sets_that_are_there(folder: Path) -> None:
    targets = load_catalog(DEBUG, {FOLDER: str(folder), IMAGES: 7}).targets
    parts = {name: (task.folder, task.test, task.max_images) for name, task in targets.tasks.items()}
    assert parts == {
        "Oxford Flowers-102": ("train", "", 7),
        "MNIST": ("test", "test", 7),
        "Flickr": ("test", "test", 7),
    }
    assert {name: (one.folder, one.split) for name, one in targets.tests.items()} == {
        "Oxford Flowers-102": ("test", "all")
    }
    said = targets.model_dump(mode="json")
    assert not {"evaluation_sets", "evaluation_images"} & set(said), "a run holds the tasks, not where they were found"
    assert load_catalog(DEBUG, {"targets": said}).targets.model_dump(mode="json") == said


def test_what_is_there_and_what_is_not_is_told(folder: Path) -> None:
    there, missing, others, parted = tasks_below(str(folder)).told
    assert there.startswith("3 of DataComp's 38 tasks are targets") and there.endswith(
        "Flickr, MNIST, Oxford Flowers-102"
    )
    assert "CIFAR-10" in missing and "MNIST" not in missing and "WinoGAViL" not in missing and "FairFace" not in missing
    assert len(missing.partition(": ")[2].split(", ")) == 38 - 4
    assert others.endswith("WinoGAViL (association)")
    assert parted.endswith("unseen pictures: Flickr, MNIST") or parted.endswith("unseen pictures: MNIST, Flickr")


def test_a_task_that_is_named_is_as_it_is_named(folder: Path) -> None:
    mine = {"MNIST": {"source": str(folder / "wds_own_test"), "weight": 2.0}}
    targets = load_catalog(DEBUG, {FOLDER: str(folder), "targets.tasks": mine}).targets
    assert targets.tasks["MNIST"].weight == 2.0 and len(targets.tasks) == 3


def test_mistakes_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"groups.digits: no task 'MNST'"):
        load_catalog(DEBUG, {FOLDER: str(folder), "targets.groups": {"digits": ["MNST"]}})
    (tmp_path / "none").mkdir()
    with pytest.raises(EvalSetError, match="neither a set in clip_benchmark's form"):
        load_catalog(DEBUG, {FOLDER: str(tmp_path / "none")})
    (tmp_path / "pool").mkdir()
    catalog = load_catalog(DEBUG, {FOLDER: str(tmp_path / "nowhere"), "pool.source": str(tmp_path / "pool")})
    with pytest.raises(CatalogError, match=r"targets.evaluation_sets .*nowhere is not there"):
        check_sources(catalog)
    with pytest.raises(CatalogError, match="'evaluation_images' is of"):
        load_catalog(CATALOGS / "fashion.toml", {IMAGES: 5})


def test_targets_of_the_command_line_are_the_folder(folder: Path) -> None:
    assert sources(DEBUG, None, str(folder)) == {FOLDER: str(folder)}
