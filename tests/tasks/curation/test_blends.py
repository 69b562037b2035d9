"""What g and a filter choose together: their places added, held against every round by the held-out part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.curation.rounds import counts_of
from tasks.curation.selection import best_round
from tasks.modality.pairs.observed import ROUND_0, observed
from tasks.modality.registry import open_recipe
from tasks.tables.published import read
from tasks.tables.run_folders import chosen_round
from testing.small_catalog import curate_plainly, small_catalog

BLENDS = ("momentum = 1.0", 'momentum = 1.0\nblends = ["loss_filter", "own_clip_filter@text"]')


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("blends")
    return curate_plainly(small_catalog(place, BLENDS), place / "home")


def test_a_blend_has_the_first_by_both_orders_as_many_as_the_last_round(curated: Path) -> None:
    with open_recipe(curated) as recipe:
        home, run, n = recipe.run.home, recipe.run.id, len(recipe)
        g = sum(read(home, run, "metagradients", r)["g"].to_numpy() for r in (0, 1))
        theta = recipe.learner()[1].theta  # what was seen is kept, and not computed again
        loss = observed(recipe, theta, ROUND_0).losses
        size = int((counts_of(recipe, 2) > 0).sum())
        places = [{int(i): k for k, i in enumerate(np.argsort(x, kind="stable"))} for x in (g, loss)]
        first = sorted(range(n), key=lambda i: (places[0][i] + places[1][i], i))[:size]
        wanted = np.zeros(n, np.int64)
        wanted[first] = 1
        np.testing.assert_array_equal(counts_of(recipe, 3), wanted)
        assert (counts_of(recipe, 4) > 0).sum() == size and not (counts_of(recipe, 4) == wanted).all()
    rounds = read(home, run, "rounds").sort_by("round")
    assert rounds["blend"].to_pylist() == [None, None, None, "loss_filter", "own_clip_filter@text"]
    assert rounds["raised"].to_pylist()[2:] == [0, 0, 0]
    assert chosen_round(home, run) == best_round("heldout_loss", rounds["heldout_loss"].to_numpy(), 40, 2)


@pytest.mark.parametrize(
    ("rule", "values", "blends", "chosen"),
    [
        ("heldout_loss", [3, 2, 2.5, 1.9], 1, 3),
        ("heldout_loss", [3, 2, 2.5, 2.0], 1, 1),
        ("heldout_accuracy", [0.1, 0.3, 0.2, 0.31, 0.35], 2, 4),
        ("heldout_accuracy_1se", [0.1, 0.30, 0.29, 0.30], 1, 2),
        ("heldout_accuracy_1se", [0.1, 0.30, 0.29, 0.31], 1, 3),
    ],
)
def test_a_blend_is_chosen_where_it_beats_every_round(rule: str, values: list, blends: int, chosen: int) -> None:
    assert best_round(rule, np.array(values), 1000, blends) == chosen


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
