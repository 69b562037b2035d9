"""`plan = "auto"`: the choice fits its budgets, is kept, and changes no result; what it costs is told beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.curation import estimate
from tasks.curation.begin import begin_run
from tasks.curation.checkpoint_plan import RECORD, plan_of
from tasks.curation.step_costs import TRIAL
from tasks.files import progress
from tasks.files.artefacts import publish_json, read_json
from tasks.modality.registry import open_recipe
from tasks.pool import pools
from testing.small_catalog import small_catalog


def begun(directory: Path, descent: str) -> Path:
    """A run of the small catalog whose window is [1, 8), with more lines in [descent]."""
    path = small_catalog(directory, ("window_start = 4", f"window_start = 1\n{descent}"))
    home, options = directory / "home", load_catalog(path)
    pool = pools.build_pool(str(options.pool.source), home, options.pool.build_options())
    return begin_run(home, path, pool).directory


def test_auto_takes_what_fits_and_keeps_its_choice(tmp_path: Path) -> None:
    run = begun(tmp_path, 'plan = "auto"\ndevice_memory = "900KB"\ndisk_space = "1GB"')
    with open_recipe(run) as recipe:
        chosen = plan_of(recipe)
        _, state = recipe.learner(np.ones(len(recipe), np.int64), 0)
        assert chosen.peak_states["device"] * state.nbytes <= 9e5
        record = recipe.run.work(RECORD)
        kept = read_json(record)
        assert kept["plan"]["plan"] in ("binomial", "segments")
        assert not recipe.run.work(TRIAL).exists(), "the trial of the disk is removed"
        publish_json(record, kept | {"plan": {"plan": "binomial", "slots": 1}})
        assert plan_of(recipe).advances == 7 * 6 // 2, "the recorded choice is used, not a new one"
    table = estimate.describe_plans(run)
    assert "7 of 8 steps differentiated" in table and "<- this catalog's" in table and "keep_all" in table


def test_a_budget_that_holds_no_state_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path, 'plan = "auto"\ndevice_memory = "400KB"')
    with (
        open_recipe(run) as recipe,
        pytest.raises(CatalogError, match=r"'auto': the device budget of 400000 bytes holds no"),
    ):
        plan_of(recipe)


def test_the_forecast_is_told_before_the_run(tmp_path: Path) -> None:
    told: list[str] = []
    progress.watch(lambda what, done, total: told.append(what))
    try:
        estimate.prepare(begun(tmp_path, 'plan = "segments"\nslots = 2\ndisk_states = 2'))
    finally:
        progress.watch(None)
    assert any(line.startswith("each differentiated round: segments plan over steps 1 to 7") for line in told)
