"""The choice of a round from held-out figures."""

import numpy as np
import pytest

from tasks.curation.selection import best_round

ACCURACIES = np.array([0.02, 0.06, 0.09, 0.08, 0.06, 0.08, 0.07])


def test_the_extreme_wins_and_the_earliest_on_a_tie():
    assert best_round("heldout_loss", np.array([3.0, 2.0, 2.0, 4.0]), 9) == 1
    assert best_round("heldout_accuracy", ACCURACIES, 100) == 2


@pytest.mark.parametrize(("pictures", "chosen"), [(100_000, 2), (1_000, 2), (500, 5), (100, 6)])
def test_one_standard_error_takes_the_last_round_that_chance_cannot_tell_from_the_best(pictures: int, chosen: int):
    """Standard error of 0.09: 0.0009, 0.009, 0.0128 and 0.0286."""
    assert best_round("heldout_accuracy_1se", ACCURACIES, pictures) == chosen


def test_one_standard_error_of_a_perfect_round_is_nothing():
    assert best_round("heldout_accuracy_1se", np.array([0.5, 1.0, 0.99]), 10) == 1
