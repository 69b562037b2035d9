"""Evaluation sets as targets: parts that never share a picture, tokens and labels as in the set, refusals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.catalog.target_options import PartsOptions, TaskOptions
from tasks.evaluation.eval_samples import EvalSetError
from tasks.evaluation.eval_sets import open_eval_set
from tasks.modality.pairs.modality import PairModality
from tasks.modality.pairs.multitask.loading import load_targets
from tasks.modality.pairs.set_targets import load_part, part_of
from tasks.modality.pairs.zero_shot import load_task
from testing.eval_set_files import png, write_set
from testing.small_catalog import small_catalog

LEAK = (
    r"of 'other' are also in target, for instance \S+/wds_copy_test/test/\d.tar, member 's\d+.png', which is "
    r"\S+/wds_own_test/test/\d+.tar, member 's\d+.png': what is tested on must be apart"
)
CLASSES = ["cat", "dog", "owl"]


def picture(number: int) -> bytes:
    return png(np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8))


def samples(n: int = 60, first: int = 0) -> list[dict[str, bytes]]:
    return [{"cls": str(i % 3).encode(), "png": picture(i)} for i in range(first, first + n)]


def task(directory: Path, split: str, **more: object) -> TaskOptions:
    return TaskOptions.model_validate({"source": str(directory), "split": split, **more})


def test_parts_are_apart_and_together_the_set(tmp_path: Path) -> None:
    directory = write_set(tmp_path / "wds_own_test", samples(), CLASSES, ["a {c}", "the {c}"])
    parts = PartsOptions(target=0.5, heldout=0.2, test=0.3, seed=3)
    loaded = {split: load_part(task(directory, split), parts, 8) for split in ("target", "heldout", "test")}
    own = {split: set(part.identities) for split, part in loaded.items()}
    everything = {sample.identity: sample for sample in open_eval_set(str(directory)).samples()}
    assert set().union(*own.values()) == set(everything) and sum(map(len, own.values())) == 60
    assert 20 <= len(own["target"]) <= 40 and own["heldout"] and own["test"]
    for part in loaded.values():
        assert part.classes == CLASSES and part.class_texts[2] == ["a owl", "the owl"]
        assert part.labels == [everything[one].label for one in part.identities]
    other = load_part(task(directory, "target"), PartsOptions(seed=4, target=0.5, heldout=0.2, test=0.3), 8)
    assert set(other.identities) != own["target"]
    # A larger set: everybody stays where they were.
    larger = write_set(tmp_path / "wds_larger_test", samples(90), CLASSES)
    assert own["target"] < set(load_part(task(larger, "target"), parts, 8).identities)


def test_the_shares_are_kept() -> None:
    rng = np.random.default_rng(0)
    parts = PartsOptions(target=0.25, heldout=0.25, test=0.1)
    drawn = Counter(part_of(rng.bytes(16).hex(), parts) for _ in range(20_000))
    assert [drawn[name] / 20_000 for name in ("target", "heldout", "test", None)] == pytest.approx(
        [0.25, 0.25, 0.1, 0.4], abs=0.012
    )


def test_equal_pictures_are_in_one_part_and_few_images_are_a_share_of_it(tmp_path: Path) -> None:
    twice = write_set(tmp_path / "wds_own_test", samples(20) + samples(20), CLASSES)
    for split in ("target", "test"):
        part = load_part(task(twice, split), PartsOptions(), 8)
        assert set(Counter(part.identities).values()) == {2}
        few = load_part(task(twice, split, max_images=6), PartsOptions(), 8)
        assert len(few.identities) == 6 and set(few.identities) < set(part.identities)
        assert (few.images == part.images[[part.identities.index(one) for one in few.identities]]).all()


def test_captions_of_a_retrieval_set_describe_each_picture(tmp_path: Path) -> None:
    pairs = [{"png": picture(i), "txt": b"one\ntwo\nthree" if i % 2 else b"only"} for i in range(8)]
    directory = write_set(tmp_path / "wds_own_test", pairs, kind="retrieval")
    part = load_part(task(directory, "test", max_texts=2), PartsOptions(target=0, heldout=0, test=1), 8)
    assert part.labels == list(range(8)) and part.classes[3] == "s0000003"
    assert part.class_texts[:2] == [["only", "only"], ["one", "two"]]


def in_sets(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The small catalog with all of its tasks in one set."""
    write_set(tmp_path / "wds_own_test", samples(), CLASSES, ["a {c}", "the {c}"])
    sections = [
        (f'[targets.{name}]\nsource = "sheet"\nsplit = "{split}"\nclasses = "label"\n',
         f'[targets.{name}]\nsource = "wds_own_test"\nsplit = "{split}"\n')
        for name, split in (("target", "target"), ("heldout", "heldout"), ("tests.fashion", "test"))
    ]  # fmt: skip
    return small_catalog(tmp_path, *sections, *changes)


def test_a_catalog_of_sets(tmp_path: Path) -> None:
    catalog = load_catalog(in_sets(tmp_path))
    loaded = load_targets(catalog.targets, 8)
    assert sum(len(data.labels) for _, _, data in loaded) == 60
    assert all(data.images.shape[1:] == (3, 8, 8) and len(data.class_texts) == 3 for _, _, data in loaded)
    moved = tmp_path / "moved"
    (tmp_path / "wds_own_test").rename(moved)
    there = catalog.targets.target.model_copy(update={"source": str(moved)})
    before = PairModality().task_identity(catalog, there)
    write_set(moved, samples(first=1), CLASSES, ["a {c}", "the {c}"])
    assert PairModality().task_identity(catalog, there) != before


def test_a_sample_in_two_roles_is_refused(tmp_path: Path) -> None:
    """Other folders, of which one has some of the other's pictures: nothing but the pictures tells."""
    other = '[targets.tests.other]\nsource = "wds_copy_test"\nsplit = "target"\n[model]\n'
    write_set(tmp_path / "wds_copy_test", samples(40, 30), CLASSES)
    catalog = load_catalog(in_sets(tmp_path, ("[model]\n", other)))
    with pytest.raises(CatalogError, match=LEAK) as told:
        load_targets(catalog.targets, 8)
    assert 'on_leak = "leave out"' in str(told.value)


def test_what_cannot_be_a_target_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="target and heldout are both split 'target' of"):
        load_catalog(in_sets(tmp_path / "a", ('split = "heldout"', 'split = "target"')))
    with pytest.raises(CatalogError, match="the shares of target, heldout and test are"):
        load_catalog(in_sets(tmp_path / "b", ("[model]\n", "[targets.parts]\ntest = 0.9\n[model]\n")))
    directory = write_set(tmp_path / "wds_own_test", samples(4), CLASSES)
    with pytest.raises(EvalSetError, match="no such part; an evaluation set has target, heldout, test and all"):
        load_part(task(directory, "validation"), PartsOptions(), 8)
    with pytest.raises(EvalSetError, match="no sample falls into it"):
        load_part(task(directory, "heldout"), PartsOptions(heldout=0), 8)
    with pytest.raises(EvalSetError, match="no train"):
        load_part(task(directory, "target", folder="train"), PartsOptions(), 8)
    labels = write_set(tmp_path / "wds_many_test", [{"png": picture(0)}], CLASSES, kind="multilabel")
    with pytest.raises(EvalSetError, match="a multilabel set is no target"):
        load_part(task(labels, "target"), PartsOptions(), 8)
    sheet = task(tmp_path / "b" / "sheet", "target")
    with pytest.raises(CatalogError, match="a sheet needs `classes`"):
        load_task(sheet, 8)
