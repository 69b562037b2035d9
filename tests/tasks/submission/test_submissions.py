"""Submission folders: everything in its place, the same bytes each time, and no contradiction let through."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from flows.cli import main
from tasks.export.exports import export_datacomp
from tasks.export.reshard import ReshardOptions, reshard
from tasks.pool.pools import build_pool
from tasks.submission.submissions import SubmissionError, SubmissionOptions, write_submission
from tasks.submission.train_info import InfoError, read_train_info
from testing.eval_lines import lines, written
from testing.manifests import write_manifest

METHOD = """
name = "Metagradient descent"
author = "A. Nonymous"
email = "a@example.org"
track = "filtering"
hf_username = "nobody"
hf_repo_name = "mgd-small"
text = "Counts by *metagradients*."
"""
SMALL = {
    "batch_size": 4096, "learning_rate": 5e-4, "train_num_samples": 12_800_000, "warmup": 500, "model": "ViT-B-32",
    "beta2": None,
}  # fmt: skip


@pytest.fixture
def pool(shard: Callable[..., str], good: Callable[..., list], tmp_path: Path) -> Path:
    shard([member for i in range(6) for member in good(i)])
    return build_pool(tmp_path / "shards", tmp_path / "home").directory


@pytest.fixture
def given(pool: Path, uid: Callable[[int], str], tmp_path: Path) -> SubmissionOptions:
    """Input that fits together: 7 samples, 4 distinct, at scale small."""
    manifest = write_manifest(tmp_path / "run", 1, [uid(i) for i in range(4)], [1, 3, 2, 1], {})
    export_datacomp(manifest, tmp_path / "subset.npy")
    reshard(pool, manifest, tmp_path / "trained", ReshardOptions(shard_size=3, workers=1))
    (tmp_path / "method.toml").write_text(METHOD)
    info = {"scale": "small", "scale_config": SMALL, "checkpoint": PurePosixPath("/x/epoch_latest.pt")}
    (tmp_path / "info.pkl").write_bytes(pickle.dumps(info))
    return SubmissionOptions(
        subset=tmp_path / "subset.npy",
        results=written(tmp_path / "eval_results.jsonl", lines()),
        method=tmp_path / "method.toml",
        scale="small",
        dataset_size=7,
        pool=pool,
        shards=tmp_path / "trained",
        info=tmp_path / "info.pkl",
    )


def changed(given: SubmissionOptions, **fields: Any) -> SubmissionOptions:
    return SubmissionOptions.model_validate({**given.model_dump(), **fields})


def test_the_folder_holds_what_the_leaderboard_asks_for(given: SubmissionOptions, tmp_path: Path) -> None:
    out = write_submission(given, tmp_path / "out").path
    assert (out / "small_scale/results.jsonl").read_bytes() == given.results.read_bytes()
    assert (out / "small_scale/samples/subset.npy").read_bytes() == given.subset.read_bytes()
    record = json.loads((out / "submission.json").read_text())
    expected = {"scale": "small", "model": "ViT-B-32", "batch_size": 4096, "learning_rate": 5e-4, "dataset_size": 7}
    expected |= {"distinct_samples": 4, "method_name": "Metagradient descent", "track": "filtering", "writeup": None}
    assert {name: record[name] for name in expected} == expected
    assert len(record["scores"]) == 38 and record["aggregates"]["ImageNet"] == record["scores"]["ImageNet 1k"]
    readme, command = (out / "README.md").read_text(), (out / "command.txt").read_text()
    assert "Counts by *metagradients*." in readme and "7 samples (4 distinct)" in readme
    assert "--method_name 'Metagradient descent'" in command and "--dataset-size 7" in command
    assert "a@example.org" not in readme and "a@example.org" in command


def test_the_same_input_gives_the_same_bytes_and_nothing_else_is_replaced(
    given: SubmissionOptions, tmp_path: Path
) -> None:
    first, second = (write_submission(given, tmp_path / name).path for name in ("a", "b"))
    files = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
    assert len(files) == 5 and all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    with pytest.raises(SubmissionError, match=r"holds a submission; .* --overwrite"):
        write_submission(given, first)
    write_submission(changed(given, overwrite=True), first)
    (first / "notes").write_text("mine")
    with pytest.raises(SubmissionError, match="holds something that is no submission"):
        write_submission(changed(given, overwrite=True), first)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_contradictions_are_told_together(given: SubmissionOptions, uid: Callable[[int], str], tmp_path: Path) -> None:
    """Another size, another subset than was trained on, uids of another pool, another scale: four at once."""
    other = write_manifest(tmp_path / "other", 1, [uid(0), uid(200)], [1, 1], {})
    export_datacomp(other, tmp_path / "other.npy")
    info = {"scale": "medium", "scale_config": {**SMALL, "batch_size": 1024}}
    (tmp_path / "info.pkl").write_bytes(pickle.dumps(info))
    with pytest.raises(SubmissionError) as refused:
        write_submission(changed(given, subset=tmp_path / "other.npy", dataset_size=2), tmp_path / "out")
    for told in (
        "5 problems",
        "was made from another subset (7 samples, 4 distinct)",
        "the stated dataset size is 2, there are 7 samples in",
        "1 of 2 uids are not in",
        "trained at scale 'medium', this is a submission at 'small'",
        "trained with batch_size 1024, scale small prescribes 4096",
    ):
        assert told in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_each_part_is_checked(given: SubmissionOptions, tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="no finished pool"):
        write_submission(changed(given, pool=tmp_path), tmp_path / "out")
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    with pytest.raises(ValueError, match="expected one-dimensional records"):
        write_submission(changed(given, subset=tmp_path / "wrong.npy"), tmp_path / "out")
    (tmp_path / "bare").write_bytes(np.load(given.subset).tobytes())
    with pytest.raises(SubmissionError, match=r"not a \.npy file"):
        write_submission(changed(given, subset=tmp_path / "bare"), tmp_path / "out")
    for text, told in (
        (METHOD.replace("filtering", "sieving"), "track: input should be 'filtering' or 'byod'"),
        (METHOD.replace("a@example.org", "nowhere"), "email: string should match"),
        (METHOD.replace('"Counts by *metagradients*."', '"  "'), "text: string should have at least 1 character"),
        (METHOD + "more = 1", "more: extra inputs are not permitted"),
        ("name", "not TOML"),
    ):
        given.method.write_text(text)
        with pytest.raises(SubmissionError, match=told):
            write_submission(given, tmp_path / "out")


class Trap:
    """Leaves a trace if a pickle of it is loaded by pickle itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os.mkdir, (str(self.path),))


def test_a_training_record_is_read_without_being_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "info.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"scale": "small", "scale_config": SMALL, "checkpoint": Trap(trace)}))
    assert read_train_info(path)["scale_config"] == SMALL and not trace.exists()
    for junk in (b"", b"junk", pickle.dumps([1]), pickle.dumps({"scale": "small"})):
        path.write_bytes(junk)
        with pytest.raises(InfoError):
            read_train_info(path)


def test_the_command(given: SubmissionOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["submit-folder", "--out", str(tmp_path / "out"), "--scale", "small"]
    for name in ("subset", "results", "method", "pool", "shards", "info"):
        arguments += [f"--{name}", str(getattr(given, name))]
    assert main(arguments) == 0 and "nothing was uploaded" in capsys.readouterr().out
    assert main([*arguments, "--dataset-size", "8"]) == 1
    assert "the stated dataset size is 8, there are 7 samples" in capsys.readouterr().err


def test_every_input_that_cannot_be_used_is_told_with_the_rest(given: SubmissionOptions, tmp_path: Path) -> None:
    """A spoilt method, results, subset, shards, pool, training record, and a file where the folder goes, at once."""
    for path in (given.results, given.method, given.info):
        assert path is not None
        path.write_bytes(b"" if path is given.results else b"\xff")
    (tmp_path / "trained" / "meta.json").write_text("[1]")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SubmissionError) as refused:
        write_submission(changed(given, pool=tmp_path, dataset_size=9), tmp_path / "out")
    for told in (
        "7 problems",
        "method.toml: not TOML",
        "eval_results.jsonl: no result in its 0 bytes; the evaluation did not finish",
        "meta.json: no",
        "the stated dataset size is 9, there are 7 samples",
        "is no finished pool",
        "info.pkl: not a readable pickle",
        "out: is a file; a submission is a directory",
    ):
        assert told in str(refused.value)
    with pytest.raises(SubmissionError, match=r"2 problems(.|\n)*elsewhere.npy(.|\n)*gone.jsonl"):
        missing = {"subset": tmp_path / "elsewhere.npy", "results": tmp_path / "gone.jsonl"}
        (tmp_path / "method.toml").write_text(METHOD)
        write_submission(changed(given, **missing, pool=None, shards=None, info=None), tmp_path / "new")
    assert (tmp_path / "out").read_text() == "mine" and not (tmp_path / "new").exists()
