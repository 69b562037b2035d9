"""A curation with a learned step: what is believed is the blend by its definition, and the bytes are the same again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from mgd_core.descent.shrinkage import denoised
from tasks.curation.rounds import finish_round, look_at_pool, probe_shard, shard_names
from tasks.modality.registry import open_recipe
from tasks.scoring.fitting import fit
from tasks.scoring.groups import group_codes
from tasks.scoring.known import EARLY, LAST, known_of
from tasks.tables.published import read
from testing.small_catalog import begun, curate_plainly, published, small_catalog

LEARNED = (
    ('rule = "exchange"', 'rule = "confident"\nlearned = true\nz = 0.2\ngroups = ["label"]'),
    ('subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]', 'subsets = ["mgd"]'),
)


def test_a_learned_step(tmp_path: Path) -> None:
    directory = curate_plainly(small_catalog(tmp_path, *LEARNED), tmp_path / "home")
    home, run = tmp_path / "home", directory.name
    with open_recipe(directory) as recipe:
        known, uids = known_of(recipe), recipe.uids
        codes = group_codes(recipe, "label", lambda: torch.empty(0))
        assert list(known.seen.numbers) == [f"{what} {name}" for name in (LAST, EARLY) for what in ("loss", "cosine")]
        rounds = [read(home, run, "metagradients", r) for r in range(2)]
        g = np.stack([one["g"].to_numpy() for one in rounds])
        probed = np.stack([one["probed"].to_numpy() for one in rounds])
        times = probed.sum(0)
        mean = np.divide(g.sum(0), times, out=np.zeros(len(uids)), where=times > 0)
        twice = times == 2
        between = float(((g - mean) ** 2 * probed)[:, twice].sum() / twice.sum())
        errors = np.concatenate([one["g_error"].drop_null().to_numpy() for one in rounds])
        noise = np.full(len(uids), np.inf)
        noise[times > 0] = max(between, float(np.mean(errors**2))) / times[times > 0]
        expected = denoised(mean, noise, [codes], fit(known, uids, mean, times.astype(float)).expected)
    found = read(home, run, "beliefs", 1)
    size = np.abs(expected.values).max()
    np.testing.assert_allclose(found["g_mean"].to_numpy(), expected.values, atol=1e-6 * size)
    np.testing.assert_allclose(found["g_sd"].to_numpy(), expected.errors, atol=1e-6 * size)

    shutil.rmtree(directory / "work" / "observed")  # seen by a unit of its own, as the flow does
    look_at_pool(directory)
    with open_recipe(directory) as recipe:
        for one, two in zip(known.seen.numbers.values(), known_of(recipe).seen.numbers.values(), strict=True):
            np.testing.assert_array_equal(one, two)
    before = published(directory)
    finish_round(directory, 1, [probe_shard(directory, 1, shard) for shard in shard_names(directory)])
    assert published(directory) == before


def test_what_came_later_names_no_other_run(tmp_path: Path) -> None:
    plain = begun(small_catalog(tmp_path), tmp_path / "home")
    idle = begun(small_catalog(tmp_path, ("p = 0.5", "p = 0.5\nlearned = false\nz = 3.0")), tmp_path / "home")
    asked = begun(small_catalog(tmp_path, ("p = 0.5", "p = 0.5\nlearned = true")), tmp_path / "home")
    assert plain == idle != asked
