"""`mgd distil`, `mgd score` and the subset of it, as they are typed: the same bytes with any runner."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.cli import main


def test_from_a_run_to_a_subset(
    prefect_api: str, curated_small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    shutil.copytree(curated_small.parents[2], place)
    home, run = ["--home", str(place / "home")], curated_small.name
    pool = str(next((place / "home" / "pools").iterdir()))
    scorer, tables = tmp_path / "s.safetensors", [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    assert main(["distil", run, "--out", str(scorer), *home]) == 0
    assert "Rank correlation with g of samples that it had not seen" in capsys.readouterr().out
    for runner, out in zip(("threads", "processes"), tables, strict=True):
        shutil.rmtree(place / "home" / "scores", ignore_errors=True)
        how = ["--runner", runner, "--workers", "2"]
        assert main(["score", str(scorer), pool, "--out", str(out), *how, *home]) == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert main(["score", str(scorer), str(place / "small.toml"), *home]) == 0  # what is scored is not scored again
    assert "scores of 240 samples" in capsys.readouterr().out
    best = tmp_path / "best.npy"
    assert main(["subset", "score(name=s, fraction=0.25)", "--pool", pool, "--out", str(best), *home]) == 0
    table = pq.read_table(tables[0])
    kept = np.argsort(-table["score"].to_numpy(), kind="stable")[:60]
    words = table["uid"].combine_chunks().storage.take(np.sort(kept)).to_pylist()
    assert [f"{high:016x}{low:016x}" for high, low in np.load(best)] == [one.hex() for one in words]
