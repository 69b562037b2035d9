"""What g and a filter choose together: their places added, held against the rounds by trainings afresh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mgd_core.engine.replay import train
from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.catalog.recipe_options import Selection
from tasks.curation.rounds import counts_of, parameters_of
from tasks.curation.selection import best_finalist
from tasks.modality.pairs.observed import observed
from tasks.modality.registry import open_recipe
from tasks.tables.published import read
from tasks.tables.run_folders import chosen_round
from testing.small_catalog import curate_plainly, small_catalog

BLENDS = (
    "momentum = 1.0",
    'momentum = 1.0\nblends = ["loss_filter", "loss_filter", "own_clip_filter@text"]\nfinal_trainings = 2',
)


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("blends")
    return curate_plainly(small_catalog(place, BLENDS), place / "home")


def test_a_blend_has_the_first_by_both_orders_as_many_as_the_last_round(curated: Path) -> None:
    with open_recipe(curated) as recipe:
        home, run, n = recipe.run.home, recipe.run.id, len(recipe)
        g = sum(read(home, run, "metagradients", r)["g"].to_numpy() for r in (0, 1))
        size = int((counts_of(recipe, 2) > 0).sum())
        losses = [observed(recipe, parameters_of(recipe, round)).losses for round in range(3)]
        places = [{int(i): k for k, i in enumerate(np.argsort(x, kind="stable"))} for x in (g, *losses)]
        for blend in (1, 2):
            first = sorted(range(n), key=lambda i: (places[0][i] + blend * sum(p[i] for p in places[1:]) / 3, i))[:size]
            wanted = np.zeros(n, np.int64)
            wanted[first] = 1
            np.testing.assert_array_equal(counts_of(recipe, 2 + blend), wanted)
        assert (counts_of(recipe, 5) > 0).sum() == size and not (counts_of(recipe, 5) == wanted).all()
    rounds = read(home, run, "rounds").sort_by("round")
    assert rounds["blend"].to_pylist() == [None, None, None, "loss_filter", "loss_filter", "own_clip_filter@text"]
    assert rounds["raised"].to_pylist()[2:] == [0, 0, 0, 0]


def test_trainings_afresh_choose_between_the_best_round_and_the_blends(curated: Path) -> None:
    with open_recipe(curated) as recipe:
        home, run = recipe.run.home, recipe.run.id
        losses = read(home, run, "rounds").sort_by("round")["heldout_loss"].to_numpy()[:3]
        finalists, means = [int(losses.argmin()), 3, 4, 5], {}
        finals = read(home, run, "finals").to_pylist()
        for number in finalists:
            rows = [row for row in finals if row["round"] == number]
            assert len({row["seed"] for row in rows}) == len(rows) == 2
            for row in rows:
                learner, state = recipe.learner(counts_of(recipe, number), row["seed"])
                theta = train(learner, state)[0].theta
                assert recipe.targets(learner).heldout.score(theta).loss == row["heldout_loss"]
            means[number] = np.mean([row["heldout_loss"] for row in rows])
        assert len(finals) == 2 * len(finalists)
    chosen = min(means, key=means.__getitem__)
    assert chosen_round(home, run) == chosen
    assert read(home, run, "choices", chosen)["value"].to_pylist() == [means[chosen]]


@pytest.mark.parametrize(
    ("rule", "values", "chosen"),
    [
        ("heldout_loss", {2: [1.0, 3.0], 5: [2.0, 1.9], 6: [2.5, 2.5]}, (5, 1.95)),
        ("heldout_loss", {2: [1.0, 3.0], 5: [3.0, 1.0]}, (2, 2.0)),
        ("heldout_accuracy", {5: [0.2, 0.5], 2: [0.3, 0.3]}, (5, 0.35)),
        ("heldout_accuracy_1se", {2: [0.25, 0.25], 5: [0.0, 0.5]}, (2, 0.25)),
    ],
)
def test_the_best_mean_is_chosen_and_the_earliest_of_equals(rule: Selection, values: dict, chosen: tuple) -> None:
    assert best_finalist(rule, values) == pytest.approx(chosen)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("momentum = 1.0", 'momentum = 1.0\nblends = ["oracle"]'),
            "descent.blends: 'oracle' is no filter; there are loss",
        ),
        (("momentum = 1.0", 'momentum = 1.0\nblends = ["los"]'), "no subset is called 'los'"),
    ],
)
def test_what_cannot_be_blended_is_told(change: tuple[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=told):
        load_catalog(small_catalog(tmp_path, change))
