"""Results files: averages as the official script computes them, and every way to be wrong told."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.evaluation.datacomp import aggregates, scale_config, tasks
from tasks.submission.eval_results import ResultsError, read_results
from testing.eval_lines import lines, written


def test_the_forty_tasks() -> None:
    assert len(tasks()) == 40 and sum(bool(task.metric) for task in tasks().values()) == 38
    assert Counter(task.group for task in tasks().values() if task.metric) == {
        "": 15, "vtab": 13, "shifts": 6, "retrieval": 3, "ImageNet": 1,
    }  # fmt: skip
    assert {key for key, task in tasks().items() if not task.metric} == {"fairness/fairface", "fairness/utkface"}
    assert scale_config("xlarge").beta2 == 0.95 and scale_config("small").pool == 12_800_000


def test_averages_are_those_of_the_official_script(tmp_path: Path) -> None:
    """Closed form: a group's mean of k-th places; the average over 38 leaves out the two without a metric."""
    results = read_results(written(tmp_path / "r.jsonl", lines()))
    assert len(results.scores) == 38
    place = {task.name: number / 40 for number, task in enumerate(tasks().values(), 1) if task.metric}
    assert results.by_name == pytest.approx(place)
    shifts = ["ImageNet Sketch", "ImageNet v2", "ImageNet-A", "ImageNet-O", "ImageNet-R", "ObjectNet"]
    assert results.aggregates == pytest.approx(
        {
            "ImageNet": place["ImageNet 1k"],
            "ImageNet dist. shifts": sum(place[name] for name in shifts) / 6,
            "VTAB": sum(place[tasks()[key].name] for key in tasks() if key.startswith("vtab/") or key == "sun397") / 13,
            "Retrieval": (place["Flickr"] + place["MSCOCO"] + place["WinoGAViL"]) / 3,
            "Average": sum(place.values()) / 38,
        }
    )
    assert set(aggregates({key: 0.25 for key in tasks()}).values()) == {0.25}


def test_the_two_tasks_without_a_metric_may_be_absent(tmp_path: Path) -> None:
    kept = [line for line in lines() if line["metrics"]["main_metric"] is not None]
    assert len(read_results(written(tmp_path / "r.jsonl", kept)).scores) == 38


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda all_: all_.pop(3), "1 of 38 tasks are missing: fairness/dollar_street"),
        (lambda all_: all_.append(all_[0]), "task cars comes 2 times"),
        (lambda all_: all_[0].update(dataset="Cars"), "task cars is called 'Cars', its name is 'Stanford Cars'"),
        (lambda all_: all_[0].update(key="tanks"), "no task 'tanks'"),
        (lambda all_: all_[0]["metrics"].update(main_metric=0.9), "main_metric is 0.9, its acc1 is 0.025"),
        (lambda all_: all_[0]["metrics"].update(main_metric=None), "main_metric is None, not a number"),
        (lambda all_: all_[0]["metrics"].update(main_metric=float("nan")), "main_metric is nan, not a number"),
        (lambda all_: all_[0]["metrics"].update(main_metric=True), "main_metric is True, not a number"),
        (lambda all_: all_[0]["metrics"].update(main_metric=57.1, acc1=57.1), "57.1; it is a share"),
        (lambda all_: all_[4]["metrics"].update(main_metric=0.5), "main_metric is 0.5, the task has none"),
        (lambda all_: all_.append([]), "line 41: not a JSON object"),
        (lambda all_: all_[0].pop("metrics"), "line 1: not a JSON object with key, dataset and metrics"),
    ],
)
def test_a_wrong_file_is_refused(change: Any, told: str, tmp_path: Path) -> None:
    content = lines()
    change(content)
    with pytest.raises(ResultsError) as refused:
        read_results(written(tmp_path / "r.jsonl", content))
    assert told in str(refused.value)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(f"x{i}\n" for i in range(20)))
    with pytest.raises(ResultsError, match=r"21 problems(.|\n)*line 12: not a JSON(.|\n)*and 9 more"):
        read_results(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ResultsError, match="not text in UTF-8"):
        read_results(path)


# What DataComp's paper and documentation say of these trainings (three digits): ImageNet, shifts, VTAB, retrieval,
# average; None where reference figures give none.
PUBLISHED = {
    "commonpool_s_s13m_b4k": (0.027, 0.037, 0.158, 0.117, 0.142),
    "commonpool_s_basic_s13m_b4k": (0.038, 0.043, 0.150, 0.118, 0.142),
    "commonpool_s_text_s13m_b4k": (0.046, 0.052, 0.169, 0.125, 0.157),
    "commonpool_s_image_s13m_b4k": (0.039, 0.045, 0.162, 0.094, 0.145),
    "commonpool_s_laion_s13m_b4k": (0.031, 0.040, 0.136, 0.092, 0.133),
    "commonpool_s_clip_s13m_b4k": (0.051, 0.055, 0.190, 0.119, 0.173),
    "commonpool_m_s128m_b4k": (0.176, None, None, None, 0.258),
    "commonpool_m_basic_s128m_b4k": (0.226, None, None, None, 0.285),
    "commonpool_m_laion_s128m_b4k": (0.230, None, None, None, 0.292),
    "commonpool_m_text_s128m_b4k": (0.255, None, None, None, 0.307),
    "commonpool_m_image_s128m_b4k": (0.268, None, None, None, 0.312),
    "commonpool_m_clip_s128m_b4k": (0.273, None, None, None, 0.328),
    "datacomp_m_s128m_b4k": (0.297, None, None, None, 0.328),
}


@pytest.mark.parametrize("training", PUBLISHED)
def test_published_scores_give_the_published_averages(training: str) -> None:
    """Per-task scores of DataComp's baselines, as open_clip lists them (docs/openclip_results.csv)."""
    with open(Path(__file__).parents[2] / "published_scores.csv", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row.pop("pretrained") == training]
    names = {task.name: key for key, task in tasks().items()}
    found = aggregates({names[name]: float(score) for name, score in row.items()})
    for average, published in zip(found.values(), PUBLISHED[training], strict=True):
        assert published is None or average == pytest.approx(published, abs=6e-4), found
