"""Clusters of embeddings: groups that are there are found, each vector is with its nearest centre, in any stretches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.modality.pairs import clusters as clustering
from tasks.modality.pairs.clusters import clusters
from tasks.modality.registry import open_recipe
from tasks.scoring.groups import group_codes
from testing.small_catalog import begun, small_catalog


def around(centres: np.ndarray, n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    own = draw.integers(0, len(centres), n)
    vectors = centres[own] + noise * draw.normal(size=(n, centres.shape[1]))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), own


def test_groups_that_lie_apart_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, own = around(np.eye(8), 4000, 0.05)
    found = clusters(vectors, 32, seed=1)
    assert all(len(set(own[found == one])) <= 1 for one in range(32)), "no cluster holds two groups"
    monkeypatch.setattr(clustering, "STRETCH", 77)
    np.testing.assert_array_equal(clusters(vectors, 32, seed=1), found)


def test_every_vector_is_with_the_nearest_mean_of_its_cluster() -> None:
    vectors, _ = around(np.eye(5), 300, 0.3)  # so few that centres are found on all of them
    found = clusters(vectors, 5, seed=0)
    means = np.stack([vectors[found == one].mean(0) for one in range(5)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_array_equal((vectors @ means.T).argmax(1), found)  # Lloyd's fixed point


def test_more_centres_than_different_vectors() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 4, 0)
    found = clusters(vectors, 10, seed=0)
    assert [len(set(found[at : at + 4])) for at in (0, 4, 8)] == [1, 1, 1] and len(set(found)) == 3


def test_a_pool_is_grouped_by_its_pictures_and_its_captions(tmp_path: Path) -> None:
    with open_recipe(begun(small_catalog(tmp_path), tmp_path / "home")) as recipe:
        theta = recipe.learner(seed=3)[1].theta
        names = ("image_cluster", "text_cluster", "text", "image_cluster*text")
        by = {name: group_codes(recipe, name, lambda: theta) for name in names}
    assert all(len(codes) == 240 and codes.min() == 0 for codes in by.values())
    same = len({(a, b) for a, b in zip(by["text"], by["text_cluster"], strict=True)})
    assert same == len(set(by["text"])), "equal captions are in one cluster"
    assert len(set(by["image_cluster"])) > 5
    crossed = list(zip(by["image_cluster"], by["text"], strict=True))
    numbers = {pair: number for number, pair in enumerate(sorted(set(crossed)))}
    assert [numbers[pair] for pair in crossed] == by["image_cluster*text"].tolist()
