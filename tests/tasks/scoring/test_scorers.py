"""Distilled scorers: on their own pool their own fit; the same bytes whoever scores; mistakes told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tasks.curation.distilled import _measured, distil, rank_correlation
from tasks.modality.registry import open_recipe
from tasks.pool.record import load_pool
from tasks.scoring.features import FeatureError
from tasks.scoring.fitting import fit
from tasks.scoring.known import known_of
from tasks.scoring.scored_pools import finish_scores, format_scores, pending_shards, plan_scores, score_shard
from tasks.scoring.scorers import Scorer, ScorerError, read_scorer
from tasks.tables.uids import uid_bytes


@pytest.fixture
def run(curated_small: Path, tmp_path: Path) -> Path:
    shutil.copytree(curated_small.parents[2], tmp_path / "place")
    return tmp_path / "place" / curated_small.relative_to(curated_small.parents[2])


@pytest.mark.parametrize("cheap", [False, True])
def test_on_its_own_pool_it_is_its_own_fit(run: Path, tmp_path: Path, cheap: bool) -> None:
    home, out = run.parents[1], tmp_path / "a.safetensors"
    told = distil(run, out, cheap)
    with open_recipe(run) as recipe:
        found = _measured(recipe, [0, 1])
        made = fit(known_of(recipe, not cheap), recipe.uids, found.mean, found.rounds)
        known = known_of(recipe, not cheap)

        expected = -made.model(torch.from_numpy(made.layout.rows(known.seen, known.own, slice(0, len(recipe))))).numpy()
        pool = recipe.pool.directory
    scorer = read_scorer(out)
    probed = found.rounds > 0
    assert scorer.told["rank_correlation"] == rank_correlation(made.expected[probed], found.mean[probed])
    assert f"{scorer.told['rank_correlation']:.2f}" in told and scorer.told["samples"] == probed.sum()
    assert (scorer.sight is None) == cheap and (out.stat().st_size < 4000) == cheap

    plan = plan_scores(out, home, pool, None, None, "cpu")
    assert len(plan.shards) == 3 == len(pending_shards(plan))
    for shard in reversed(plan.shards):
        score_shard(plan, shard)
    assert pending_shards(plan) == []
    finish_scores(plan)
    assert "240 samples" in format_scores(plan)
    table = pq.read_table(home / "scores" / "a.parquet")
    with open_recipe(run) as recipe:
        assert (uid_bytes(table["uid"]) == recipe.uids).all()
    np.testing.assert_allclose(table["score"].to_numpy(), expected, atol=1e-5 * np.abs(expected).max())

    bytes_of = plan.out.read_bytes()
    shutil.rmtree(home / "scores")
    other = plan_scores(out, home, pool, None, tmp_path / "other.parquet", "cpu")
    for shard in other.shards:
        score_shard(other, shard)
    finish_scores(other)
    assert other.out.read_bytes() == bytes_of
    again = tmp_path / "again.safetensors"
    distil(run, again, cheap)
    assert again.read_bytes() == out.read_bytes()


def test_mistakes_are_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(ScorerError, match="is there and is no scorer"):
        distil(run, taken, cheap=True)
    for content in (b"", b"mine" * 100, b"\x02\0\0\0\0\0\0\0{}"):
        taken.write_bytes(content)
        with pytest.raises(ScorerError, match="no scorer as `mgd distil` writes them"):
            read_scorer(taken)
    with pytest.raises(ScorerError, match="no such file"):
        read_scorer(tmp_path / "nowhere")
    out = tmp_path / "a.safetensors"
    distil(run, out, cheap=True)
    scorer, pool = read_scorer(out), load_pool(next((run.parents[1] / "pools").iterdir()))
    assert pool is not None and isinstance(scorer, Scorer)
    for name, place, device in (("-", None, "cpu"), ("a", None, "abacus")):
        with pytest.raises(ScorerError, match=r"--save -|--device abacus"):
            plan_scores(out, run.parents[1], pool.directory, name, place, device)
    with pytest.raises(ScorerError, match="no pool, or one that is gone"):
        plan_scores(out, run.parents[1], tmp_path, "a", None, "cpu")
    monkeypatch.setattr("tasks.scoring.scorers.numbers_of", lambda _: {"width": np.zeros(1)})
    with pytest.raises(FeatureError, match="the scorer reads"):
        scorer.check(pool)


def test_rank_correlation() -> None:
    x, y = np.array([1.0, 2, 2, 9, 4]), np.array([3.0, 1, 2, 2, 5])
    ranks = np.array([0, 1.5, 1.5, 4, 3]), np.array([3, 0, 1.5, 1.5, 4])
    assert rank_correlation(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1) and rank_correlation(x, np.ones(5)) == 0
