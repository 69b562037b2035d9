"""Evaluation: a real open_clip checkpoint on sets of every kind, against plain loops over samples and their cosines."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from flows.cli import main
from tasks.curation.begin import begin_run
from tasks.curation.estimate import publish_pool
from tasks.curation.trained import published_counts, run_encoder, trained_identity, trained_parameters
from tasks.evaluation.datacomp import folder_names, name_of, resolved, task_key, tasks
from tasks.evaluation.encoders import CheckpointError, OpenClipEncoder, open_clip_encoder
from tasks.evaluation.eval_samples import EvalSetError
from tasks.evaluation.eval_sets import FAIRNESS, find_eval_sets, open_eval_set
from tasks.evaluation.evaluation_records import (
    Evaluated,
    are_evaluated,
    evaluate_sets,
    evaluation_rows,
    format_evaluations,
    publish_rows,
    write_results,
)
from tasks.evaluation.fairness import QUESTIONS
from tasks.evaluation.scoring import Evaluation, evaluate_set
from tasks.files.progress import watch
from tasks.files.remote_files import Reader
from tasks.modality.registry import open_recipe
from tasks.pool.pools import build_pool
from tasks.pool.sheets import open_sheet
from tasks.submission.eval_results import read_results
from tasks.tables.published import read
from testing.eval_set_files import npy, png, write_set
from testing.small_catalog import small_catalog

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
CLASSES = ["cat", "dog", "{c} in braces", "old boot", "tree", "sky"]
FACE_CLASSES = [f"{q}:{q} {i}" for q, n in (("race", 3), ("gender", 2), ("age", 3), ("toxic", 20)) for i in range(n)]
TEMPLATES = ["a photo of a {c}.", "{c}, drawn"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint as open_clip's training writes it, and its model config."""
    import open_clip

    directory = tmp_path_factory.mktemp("model")
    config = directory / "mgd-tiny.json"
    config.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(str(config))
    torch.manual_seed(0)
    model = open_clip.create_model("mgd-tiny")
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    optimizer = {"param_groups": [{"lr": np.float64(1e-3)}]}  # as its cosine schedule leaves it
    torch.save({"epoch": 1, "name": "x", "state_dict": state, "optimizer": optimizer}, directory / "epoch_1.pt")
    return directory / "epoch_1.pt", config


@pytest.fixture(scope="module")
def encoder(checkpoint: tuple[Path, Path]) -> OpenClipEncoder:
    return open_clip_encoder(checkpoint[0], str(checkpoint[1]))


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (3, 4, 3), np.uint8)  # large patches, so that random models tell pictures apart
    return png(coarse.repeat(8, 0).repeat(7, 1))


def image_feature(encoder: OpenClipEncoder, data: bytes) -> np.ndarray:
    pixels = encoder.transform(Image.open(io.BytesIO(data)).convert("RGB"))[None]
    with torch.no_grad():
        return encoder.model.encode_image(pixels, normalize=True)[0].double().numpy()


def text_feature(encoder: OpenClipEncoder, text: str) -> np.ndarray:
    with torch.no_grad():
        return encoder.model.encode_text(encoder.tokenizer([text]), normalize=True)[0].double().numpy()


def naive_scores(encoder: OpenClipEncoder, pictures: list[bytes], classes: list[str] = CLASSES) -> np.ndarray:
    heads = []
    for name in classes:
        head = np.mean([text_feature(encoder, t.replace("{c}", name)) for t in TEMPLATES], axis=0)
        heads.append(head / np.linalg.norm(head))
    return np.array([[image_feature(encoder, data) @ head for head in heads] for data in pictures])


def ranks(row: np.ndarray) -> list[int]:
    return sorted(range(len(row)), key=lambda c: -row[c])


def test_classification(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 5, 23)
    pictures = [picture(i) for i in range(23)]
    samples = [{"cls": str(y).encode(), "png": data} for y, data in zip(labels, pictures, strict=True)]
    found = open_eval_set(str(write_set(tmp_path / "wds_own_test", samples, CLASSES, TEMPLATES)))
    done = evaluate_set(found, encoder, batch=7)
    scores = naive_scores(encoder, pictures)
    first = [ranks(row)[0] for row in scores]
    recalls = [np.mean([p == c for p, y in zip(first, labels, strict=True) if y == c]) for c in sorted(set(labels))]
    assert (done.key, done.samples, done.main) == ("wds/own", 23, "acc1")
    assert done.metrics == pytest.approx({
        "acc1": np.mean([p == y for p, y in zip(first, labels, strict=True)]),
        "acc5": np.mean([y in ranks(row)[:5] for row, y in zip(scores, labels, strict=True)]),
        "mean_per_class_recall": np.mean(recalls),
    })  # fmt: skip
    assert evaluate_set(found, encoder, batch=23).metrics == done.metrics
    share = done.metrics["acc1"] or 0.0
    assert done.errors["acc1"] == (23, pytest.approx((share * (1 - share) / 23) ** 0.5))
    (row,) = [row for row in evaluation_rows([done], "mgd", 1, 64) if row["metric"] == "acc5"]
    assert (row["n"], row["standard_error"]) == done.errors["acc5"]
    assert set(done.errors) == {"acc1", "acc5", "mean_per_class_recall"}
    assert f"±{done.errors['acc1'][1]:.4f}" in format_evaluations([done])


def test_four_classes_have_no_acc5(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    samples = [{"cls": b"1", "webp": picture(0)}, {"cls": b" 3\n", "jpg": picture(1)}]
    found = open_eval_set(str(write_set(tmp_path / "s", samples, CLASSES[:4])))
    assert evaluate_set(found, encoder).metrics["acc5"] is None


@pytest.mark.parametrize(
    ("folder", "column", "top", "average", "worst"),
    [
        ("wds_dollar_street_test", 0, 5, "acc_top5_avg", "acc_top5_wg"),
        ("wds_geode_test", 0, 1, "acc_avg", "acc_wg"),
        ("wds_wilds-camelyon17_test", 1, 1, "acc_avg", "acc_wg"),
        ("wds_wilds-fmow_test", 0, 1, "acc_avg", "acc_worst_region"),
    ],
)
def test_the_worst_group(
    folder: str, column: int, top: int, average: str, worst: str, encoder: OpenClipEncoder, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    labels, columns = rng.integers(0, 6, 30), rng.choice([0, 2, 3], (30, 3))
    pictures = [picture(i) for i in range(30)]
    samples = [
        {"cls": str(y).encode(), "npy": npy(row), "png": data}
        for y, row, data in zip(labels, columns, pictures, strict=True)
    ]
    found = open_eval_set(str(write_set(tmp_path / folder, samples, CLASSES, TEMPLATES)))
    done = evaluate_set(found, encoder, any_size=True)
    right = [y in ranks(row)[:top] for row, y in zip(naive_scores(encoder, pictures), labels, strict=True)]
    groups = [np.mean([r for r, g in zip(right, columns[:, column], strict=True) if g == value]) for value in (0, 2, 3)]
    assert tasks()[done.key].metric in ("acc1", worst)
    assert done.metrics[average] == pytest.approx(np.mean(right))
    assert done.metrics[worst] == pytest.approx(min(groups))


def test_macro_f1_of_iwildcam(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    labels, pictures = np.random.default_rng(3).integers(0, 6, 30), [picture(i) for i in range(30)]
    samples = [{"cls": str(y).encode(), "png": data} for y, data in zip(labels, pictures, strict=True)]
    found = open_eval_set(str(write_set(tmp_path / "wds_wilds-iwildcam_test", samples, CLASSES, TEMPLATES)))
    first = [ranks(row)[0] for row in naive_scores(encoder, pictures)]
    f1 = []
    for c in sorted(set(labels)):
        tp = sum(p == y == c for p, y in zip(first, labels, strict=True))
        f1.append(2 * tp / (sum(labels == c) + first.count(c)))
    done = evaluate_set(found, encoder, any_size=True)
    assert done.main == "F1-macro_all" and done.metrics["F1-macro_all"] == pytest.approx(np.mean(f1))


def test_retrieval(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    captions = [[f"text {i} of {j}" for j in range(1 + i % 3)] for i in range(12)]
    pictures = [picture(i) for i in range(12)]
    samples = [{"png": data, "txt": "\n".join(own).encode()} for data, own in zip(pictures, captions, strict=True)]
    found = open_eval_set(str(write_set(tmp_path / "s", samples, kind="retrieval")))
    done = evaluate_set(found, encoder, batch=5)
    images = np.array([image_feature(encoder, data) for data in pictures])
    owner = [i for i, own in enumerate(captions) for _ in own]
    texts = np.array([text_feature(encoder, text) for own in captions for text in own])
    for k in (1, 5, 10):
        of_text = [own in ranks(row)[:k] for row, own in zip(texts @ images.T, owner, strict=True)]
        of_image = [any(owner[t] == i for t in ranks(row)[:k]) for i, row in enumerate(images @ texts.T)]
        assert done.metrics[f"image_retrieval_recall@{k}"] == pytest.approx(np.mean(of_text))
        assert done.metrics[f"text_retrieval_recall@{k}"] == pytest.approx(np.mean(of_image))
        for way, asked in (("image", of_text), ("text", of_image)):
            error = np.std(asked) / len(asked) ** 0.5
            assert done.errors[f"{way}_retrieval_recall@{k}"] == (len(asked), pytest.approx(error))
    both = [done.metrics[f"{way}_retrieval_recall@1"] for way in ("text", "image")]
    assert done.errors["mean_recall@1"][0] == len(pictures) and 0 < done.errors["mean_recall@1"][1] < 0.5
    assert done.metrics["mean_recall@1"] == pytest.approx(sum(v for v in both if v is not None) / 2)


def test_associations(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    rng, samples, expected = np.random.default_rng(4), [], {}
    for number, size in enumerate((5, 6, 10, 12, 12)):
        own = np.isin(range(size), rng.choice(size, 2, replace=False))
        pictures = [picture(100 * number + i) for i in range(size)]
        samples.append({f"{i}.png": data for i, data in enumerate(pictures)} | {"npy": npy(own), "txt": b"Apple"})
        text = text_feature(encoder, "An apple")
        chosen = set(ranks(np.array([image_feature(encoder, data) @ text for data in pictures]))[:2])
        true = set(np.flatnonzero(own).tolist())
        expected.setdefault(size, []).append(len(chosen & true) / len(chosen | true))
    found = open_eval_set(str(write_set(tmp_path / "wds_winogavil_test", samples, kind="association")))
    done = evaluate_set(found, encoder, any_size=True)
    assert done.key == "misc/winogavil"
    for name, sizes in {"10-12": (10, 12), "5-6": (5, 6), "12": (12,), "6": (6,)}.items():
        mean = np.mean([value for size in sizes for value in expected[size]])
        assert done.metrics[f"jaccard_score_{name}"] == pytest.approx(mean)


def test_faces(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    """Answers by question, against loops: a group is a pair of gender and race in one of the metrics."""
    rng = np.random.default_rng(6)
    known, pictures = np.stack([rng.integers(0, n, 40) for n in (3, 2, 3, 2)], 1), [picture(i) for i in range(40)]
    samples = [{"png": data, "npy": npy(own)} for data, own in zip(pictures, known, strict=True)]
    said = [f"{q}:{text}" for q in QUESTIONS for text in TEMPLATES]
    found = open_eval_set(str(write_set(tmp_path / "wds_fairface_test", samples, FACE_CLASSES, said)))
    answers = {}
    for q in QUESTIONS:
        own = [name.partition(":")[2] for name in FACE_CLASSES if name.startswith(f"{q}:")]
        answers[q] = np.array([ranks(row)[0] for row in naive_scores(encoder, pictures, own)])
    done = evaluate_set(found, encoder, any_size=True).metrics
    age, gender, race, binary = known.T
    right = {"acc_race": (answers["race"] != 1) == binary, "acc_age": answers["age"] == age}
    right |= {"toxicity_crime": answers["toxic"] >= 18, "toxicity_nonhuman": np.isin(answers["toxic"], range(14, 18))}
    for name, hits in right.items():
        assert done[f"{name}_avg"] == pytest.approx(hits.mean())
    pairs = {(g, r): (answers["gender"] == gender)[(gender == g) & (race == r)] for g in (0, 1) for r in (0, 1, 2)}
    for (g, r), hits in pairs.items():
        assert done[f"acc_gender_x_race:{r}_gender:{g}"] == pytest.approx(hits.mean())
        assert done[f"count_race:{r}_gender:{g}"] == len(hits)
    assert done["acc_gender_x_wg"] == pytest.approx(min(hits.mean() for hits in pairs.values()))


def test_multilabel(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    truth, pictures = np.random.default_rng(5).random((9, 6)) < 0.4, [picture(i) for i in range(9)]
    samples = [{"png": data, "npy": npy(own.astype(np.float32))} for data, own in zip(pictures, truth, strict=True)]
    found = open_eval_set(str(write_set(tmp_path / "s", samples, CLASSES, TEMPLATES, "multilabel")))
    scores, precisions = naive_scores(encoder, pictures), []
    for c in range(6):
        places = [place for place, i in enumerate(ranks(scores[:, c]), 1) if truth[i, c]]
        precisions.append(sum(n / place for n, place in enumerate(places, 1)) / max(len(places), 1))
    done = evaluate_set(found, encoder)
    assert done.metrics["mean_average_precision"] == pytest.approx(np.mean(precisions))


def test_an_evaluation_of_datacomps_tasks_ends_as_its_results_file(
    encoder: OpenClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 40 tasks on tiny sets, some remote: lines that the reader of results takes; done ones are not done again."""
    samples = [{"cls": str(i).encode(), "npy": npy([0, 1, 0]), "png": picture(i)} for i in range(2)]
    pairs = [{"png": picture(i), "txt": b"a\nb"} for i in range(2)]
    people = [{"npy": npy([i, 1, i, i]), "png": picture(i)} for i in range(2)]
    cue = [{**{f"{i}.png": picture(i) for i in range(10)}, "npy": npy([1] * 5 + [0] * 5), "txt": b"moon"}]
    for key, folder in {key: folder for folder, key in folder_names().items()}.items():
        if key.startswith("retrieval/"):
            write_set(tmp_path / "sets" / folder, pairs, kind="retrieval")
        elif key in FAIRNESS:
            write_set(tmp_path / "sets" / folder, people, FACE_CLASSES, [f"{q}:a {{c}}" for q in QUESTIONS])
        elif key.startswith("misc/"):
            write_set(tmp_path / "sets" / folder, cue, kind="association")
        else:
            write_set(tmp_path / "sets" / folder, samples, CLASSES)
    remote = fsspec.filesystem("memory")
    remote.put(str(tmp_path / "sets" / "wds_mnist_test"), "/far/wds_mnist_test", recursive=True)
    shutil.rmtree(tmp_path / "sets" / "wds_mnist_test")
    folders = [str(tmp_path / "sets"), "memory://far"]
    with pytest.raises(EvalSetError, match="has 2 samples, the test set of task cars has 8,041"):
        evaluate_sets(folders, encoder, tmp_path / "out")
    done = evaluate_sets(folders, encoder, tmp_path / "out", any_size=True)
    assert len(done) == 40
    results = read_results(tmp_path / "out" / "eval_results.jsonl")
    assert results.scores == {one.key: one.metrics[one.main] for one in done if one.main}
    assert format_evaluations(done).split()[-2:] == ["Average", f"{results.aggregates['Average']:.3f}"]
    assert evaluate_sets(["memory://far"], encoder, tmp_path / "out", any_size=True) == done  # the others stay
    monkeypatch.setattr("tasks.evaluation.evaluation_records.evaluate_set", None)  # whoever calls it now fails
    assert evaluate_sets(folders, encoder, tmp_path / "out", any_size=True) == done
    known = Evaluated(encoder.identity)
    assert are_evaluated(folders, known.identity, tmp_path / "out", 64, Reader())
    assert evaluate_sets(folders, known, tmp_path / "out") == done
    for identity, batch in ((encoder.identity, 3), ("another", 64)):
        assert not are_evaluated(folders, identity, tmp_path / "out", batch, Reader())
    with pytest.raises(TypeError):
        evaluate_sets(folders, encoder, tmp_path / "out", batch=3, any_size=True)
    remote.rm("/far", recursive=True)


def test_rows_stand_beside_those_of_other_trainings(tmp_path: Path) -> None:
    one = Evaluation("mnist", {"acc1": 0.5, "acc5": None}, 2)
    for value in (0.5, 0.75):
        again = Evaluation("mnist", {"acc1": value}, 2)
        publish_rows(tmp_path, "r-1", 2, evaluation_rows([again], "mgd", 1, 64))
    publish_rows(tmp_path, "r-1", 2, evaluation_rows([one], "checkpoint", 0, None))
    rows = read(tmp_path, "r-1", "evaluations", 2).select(["subset", "seed", "task", "metric", "value"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("checkpoint", 0, "mnist", "acc1", 0.5),
        ("mgd", 1, "mnist", "acc1", 0.75),
    ]
    write_results(tmp_path / "r.jsonl", [Evaluation("own", {"acc1": 1.0}, 2), one])
    (line,) = (tmp_path / "r.jsonl").read_text().splitlines()
    metrics = {"acc1": 0.5, "acc5": None, "main_metric": 0.5}
    assert json.loads(line) == {"key": "mnist", "dataset": "MNIST", "metrics": metrics}


def test_what_a_run_trained_scores_as_its_own_test_task(tmp_path: Path) -> None:
    """Fashion's test tiles as a set: the accuracy that the engine's zero-shot task gives the same parameters."""
    catalog = small_catalog(tmp_path, ("steps = 8", "steps = 5"), ("probe_steps = [4, 6]", "probe_steps = [4]"))
    sheet = open_sheet(tmp_path / "sheet")
    labels = sheet.rows("test")["label"].to_pylist()
    classes = sorted(set(labels))
    samples = [
        {"cls": str(classes.index(label)).encode(), "png": png(tile[:, :, 0])}
        for label, tile in zip(labels, sheet.images("test"), strict=True)
    ]
    shown = [name.replace("-", " ") for name in classes]
    found = open_eval_set(str(write_set(tmp_path / "wds_own_test", samples, shown, ["a photo of a {c}"], per_shard=30)))
    pool = build_pool(tmp_path / "sheet", tmp_path / "home")
    with open_recipe(begin_run(tmp_path / "home", catalog, pool).directory) as bench:
        counts = np.ones(len(bench), np.int64)
        encoder = run_encoder(bench, counts, "everything", 7)
        learner, _ = bench.learner(counts, 7)
        theta = trained_parameters(bench, counts, "everything", 7)
        score = bench.targets(learner).tests["fashion"].score(theta)
        done = evaluate_set(found, encoder)
        assert done.metrics["acc1"] == pytest.approx(score.accuracy) and done.samples == 40
        publish_pool(bench)
        assert trained_identity(bench.run, published_counts(bench.run, 0), 8) is None, "to be trained yet"
        assert trained_identity(bench.run, published_counts(bench.run, 0), 7) == encoder.identity
        assert not torch.equal(encoder.texts(["trouser"]), encoder.texts(["coat"]))
        told: list[str] = []
        watch(lambda what, _, __: told.append(what))
        assert torch.equal(encoder.texts(["a photo of a xylophone"]), encoder.texts(["a photo of a"]))
        watch(None)
        assert told == ["1 of 1 texts have tokens that the run's pool and targets did not; left out there"]


def test_the_command(checkpoint: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = str(write_set(tmp_path / "wds_mnist_test", [GOOD, GOOD], CLASSES))
    model = ["--checkpoint", str(checkpoint[0]), "--model", str(checkpoint[1]), "--home", str(tmp_path)]
    assert main(["evaluate", sets, *model]) == 1
    assert "has 2 samples, the test set of task mnist has 10,000" in capsys.readouterr().err
    assert main(["evaluate", sets, *model, "--any-size", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "mnist  acc1" in told and "1 of DataComp's 38 tasks" in told
    query = "select distinct subset, samples_seen is null as unknown from evaluations"
    assert main(["sql", query, "--home", str(tmp_path), "--format", "csv"]) == 0
    assert capsys.readouterr().out.split() == ["subset,unknown", "checkpoint,True"]
    assert main(["evaluate", sets, "--checkpoint", str(checkpoint[0])]) == 1
    assert "--checkpoint takes --model" in capsys.readouterr().err


def test_names_of_folders() -> None:
    page = "https://huggingface.co/datasets/djghosh/wds_vtab-dtd_test/tree/main"
    assert resolved(page) == page.replace("/tree/", "/resolve/") and name_of(resolved(page)) == "wds_vtab-dtd_test"
    assert resolved("s3://a/tree/b/") == "s3://a/tree/b" and name_of("s3://a/tree/b") == "b"
    assert task_key("wds_vtab-dtd_test") == "vtab/dtd" and task_key("wds_geode_test") == "fairness/geode"
    assert task_key("wds_imagenet-a_test") == "imagenet-a" and task_key("wds_my_own_test") == "wds/my_own"
    assert set(folder_names().values()) == set(tasks())


SENTENCES = "zeroshot_classification_templates.txt"
GOOD = {"cls": b"0", "png": picture(0)}
Change = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("samples", "change", "told"),
    [
        ([{"cls": b"6", "png": picture(0)}], None, "label is '6'; with 6 class names it is 0 to 5"),
        ([{"cls": b"-1", "png": picture(0)}], None, "label is '-1'"),
        ([{"png": picture(0)}], None, "sample 's0000000': has png; a sample of a classification set has an image and"),
        ([{"cls": b"0"}], None, "has cls; a sample"),
        ([{"cls": b"0", "png": b"no picture"}], None, "image cannot be decoded"),
        ([GOOD, {**GOOD, "npy": npy([1])}], None, "only some samples have an npy member"),
        ([{**GOOD, "npy": npy(np.array([{}], object))}], None, "npy is not readable"),
        ([{**GOOD, "npy": npy([0.5])}], None, "one row of whole numbers"),
        ([GOOD], lambda d: (d / "test/nshards.txt").unlink(), "neither a set in clip_benchmark's form"),
        ([GOOD], lambda d: (d / "test/nshards.txt").write_text("2"), "lacks a tar that nshards.txt counts"),
        ([GOOD], lambda d: (d / "test/1.tar").write_bytes(b""), "says 1, so 1.tar would be passed over"),
        ([GOOD], lambda d: (d / "test/00000.tar").write_bytes(b""), "says 1, so 00000.tar would be passed over"),
        ([GOOD], lambda d: (d / "test/nshards.txt").write_text("many"), "says 'many', not a number"),
        ([GOOD], lambda d: (d / "classnames.txt").unlink(), "classnames.txt: not there"),
        ([GOOD], lambda d: (d / "zeroshot_classification_templates.txt").write_text(""), "templates.txt: empty"),
        ([GOOD], lambda d: (d / "zeroshot_classification_templates.txt").write_text("a cat\n"), "has no {c}"),
        ([GOOD], lambda d: (d / "classnames.txt").write_bytes(b"\xff"), "not text in UTF-8"),
        ([GOOD], lambda d: (d / "dataset_type.txt").write_text("video"), "says 'video'; there are classification"),
        ([GOOD], lambda d: _cut(d / "test/0.tar"), "without its end-of-archive block"),
        ([GOOD], lambda d: _twice(d / "test/0.tar"), "comes twice"),
        ([GOOD] * 2, lambda d: _twice(d / "test/0.tar"), "'s0000000' comes twice"),
        ([GOOD, {**GOOD, "__bad__": b"1"}], None, "member 's0000001.__bad__' is torn or of no sample"),
        ([], lambda d: write_set(d, [], CLASSES, per_shard=1), "nshards.txt: says '0'"),
        ([GOOD], lambda d: (d / "test/nshards.txt").write_text("9" * 12), "not a number of tars"),
        ([GOOD] * 6, lambda d: (d / "test/nshards.txt").write_text("1"), "says 1, so 1.tar would be passed over"),
        ([GOOD] * 6, lambda d: (d / "test/0.tar").unlink(), "it says 2, there is no 0.tar (1.tar there)"),
        ([GOOD], lambda d: (d / "test/0.tar").rename(d / "test/00000.tar"), "there is no 0.tar (00000.tar there)"),
        ([GOOD], lambda d: shutil.copy(d / "test/0.tar", d / "test/more.TAR"), "more.TAR would be passed over"),
        ([GOOD], lambda d: shutil.copy(d / "test/0.tar", d / "test/1.tar.gz"), "1.tar.gz would be passed over"),
        ([GOOD], lambda d: (d / "test/0.tar").unlink(), "there is no 0.tar (none at all there)"),
        ([GOOD], lambda d: (d / "classnames.txt").write_text("cat\n\ndog\n"), "classnames.txt: line 2 of 3 is blank"),
        ([GOOD], lambda d: (d / "classnames.txt").write_text("\ncat\ndog\n"), "classnames.txt: line 1 of 3 is blank"),
        ([GOOD], lambda d: (d / "classnames.txt").write_text("a\nb\na\n"), "classnames.txt: 'a' stands in lines 1, 3"),
        ([GOOD], lambda d: (d / "classnames.txt").write_text("a\nb\na \r\n"), "'a' stands in lines 1, 3"),
        ([GOOD], lambda d: (d / SENTENCES).write_text("a {c}\n \nthe {c}\n"), "templates.txt: line 2 of 3 is blank"),
        ([GOOD], lambda d: (d / SENTENCES).write_text("a {c}\na {c}\n"), "templates.txt: 'a {c}' stands in lines 1, 2"),
        ([GOOD], lambda d: (d / SENTENCES).write_text("a {}\n"), "templates.txt: template 'a {}' has no {c}"),
        ([GOOD], lambda d: (d / SENTENCES).unlink(), "templates.txt: not there"),
        ([{**GOOD, "cls": b"cat"}], None, "0.tar, sample 's0000000': its label is 'cat'"),
        ([{**GOOD, "cls": b"1.0"}], None, "its label is '1.0'"),
        ([{**GOOD, "cls": b""}], None, "its label is ''"),
        ([GOOD, {"cls": b"0", "png": b"GIF89a"}], None, "member 's0000001.png': its image cannot be decoded (not a"),
    ],
)  # fmt: skip
def test_a_set_that_is_not_sound_is_refused(
    samples: list[dict[str, bytes]], change: Change | None, told: str, encoder: OpenClipEncoder, tmp_path: Path
) -> None:
    directory = write_set(tmp_path / "wds_own_test", samples, CLASSES, TEMPLATES)
    if change:
        change(directory)
    with pytest.raises(EvalSetError, match=re.escape(told)):
        evaluate_sets([str(directory)], encoder, tmp_path / "out")


@pytest.mark.parametrize("text", [b"cat\r\ndog\r\n", b"\xef\xbb\xbfcat\ndog", b"cat\ndog\n\n \n", b"  cat\t\ndog\r"])
def test_marks_line_ends_and_blank_lines_at_the_end_shift_no_label(text: bytes, tmp_path: Path) -> None:
    directory = write_set(tmp_path / "wds_own_test", [GOOD], CLASSES)
    (directory / "classnames.txt").write_bytes(text)
    (directory / SENTENCES).write_bytes(text.replace(b"cat", b"a {c}").replace(b"dog", b"the {c}"))
    (directory / "test" / "nshards.txt").write_bytes(b"\xef\xbb\xbf1\r\n")
    found = open_eval_set(str(directory))
    assert (found.classes, found.templates) == (("cat", "dog"), ("a {c}", "the {c}"))


def test_datacomps_sets_are_taken_as_published(tmp_path: Path) -> None:
    """ImageNet's list has two names twice; whatever a set of it is called, it is no mistake there."""
    from open_clip import IMAGENET_CLASSNAMES

    told: list[str] = []
    watch(lambda what, _, __: told.append(what))
    for folder in ("wds_imagenet1k_test", "wds_imagenet1k"):
        directory = write_set(tmp_path / folder, [GOOD], IMAGENET_CLASSNAMES)
        assert open_eval_set(str(directory)).classes == tuple(IMAGENET_CLASSNAMES)
    watch(None)
    assert len(told) == 1 and "missile, sunglasses there more than once; taken as published" in told[0]


def test_what_is_not_read_is_told(tmp_path: Path, encoder: OpenClipEncoder) -> None:
    directory = write_set(tmp_path / "sets" / "wds_own_test", [GOOD], CLASSES)
    write_set(directory, [GOOD], CLASSES, folder="train")
    write_set(tmp_path / "sets" / "wds_half_test", [GOOD], CLASSES, folder="train")
    (tmp_path / "linked").symlink_to(tmp_path / "sets")
    told: list[str] = []
    watch(lambda what, _, __: told.append(what))
    evaluate_sets([str(tmp_path / "linked")], encoder, tmp_path / "out")
    watch(None)
    assert any(one.endswith("wds_half_test: passed over, it has train and no test folder") for one in told)
    assert any(one.endswith("wds_own_test: test is read; left unread: train") for one in told)
    assert not (tmp_path / "out" / "eval_results.jsonl").exists()  # there are no tasks of DataComp's to write down
    (tmp_path / "sets" / "wds_half_test" / "train").rename(tmp_path / "sets" / "wds_half_test" / "test")
    (tmp_path / "sets" / "wds_half_test" / "test" / "nshards.txt").unlink()
    with pytest.raises(EvalSetError, match="has tars in test, but no"):
        find_eval_sets(str(tmp_path / "sets"))


def _cut(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes()[:2048])


def _twice(tar: Path) -> None:
    data = tar.read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512)
    tar.write_bytes(data + data + bytes(1024))


def test_folders_and_checkpoints_that_are_none(checkpoint: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(EvalSetError, match="neither a set in clip_benchmark's form"):
        find_eval_sets(str(tmp_path))
    for name in ("a", "b"):
        write_set(tmp_path / name / "wds_mnist_test", [GOOD], CLASSES)
    encoder = open_clip_encoder(checkpoint[0], str(checkpoint[1]))
    with pytest.raises(EvalSetError, match="both of task 'mnist'"):
        evaluate_sets([str(tmp_path / "a"), str(tmp_path / "b")], encoder, tmp_path / "out")
    with pytest.raises(EvalSetError, match="'mnist' is the name of a task of the run's catalog"):
        evaluate_sets([str(tmp_path / "a")], encoder, tmp_path / "out", taken={"mnist"})
    with pytest.raises(CheckpointError, match="no such file"):
        open_clip_encoder(tmp_path / "nothing.pt", "ViT-B-32")
    with pytest.raises(CheckpointError, match="open_clip has no model 'ViT-B-33'"):
        open_clip_encoder(checkpoint[0], "ViT-B-33")
    (tmp_path / "bad.pt").write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match="not a checkpoint of"):
        open_clip_encoder(tmp_path / "bad.pt", str(checkpoint[1]))
