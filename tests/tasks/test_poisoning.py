"""Poisoning a tiny study: what is allowed, what it does, and that a curator sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgd_core.metaparameters import check_simplex
from mgd_core.plans import keep_all
from mgd_core.replay import replay
from tasks import poison_evidence, poisoning
from tasks.queries import connect
from tasks.study_bench import begin_study, opened_study
from tasks.study_targets import target_of
from tests.small_study import small_study


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("poison")
    changes = [("steps = 6", "steps = 20"), ("share = 0.1\nsteps = 2", "share = 0.1\nsteps = 4\ncancel_steps = 5")]
    return begin_study(tmp / "home", small_study(tmp, *changes))


def test_poisons_are_pictures_and_probabilities_and_only_those_samples_change(studied: Path):
    with opened_study(studied) as bench:
        start, n = poisoning.start_of(bench), len(bench.train)
        for method in poisoning.METHODS:
            found = poisoning.poisons_of(studied, method)
            assert torch.equal(found.ids, start.ids) and len(found.ids) == round(0.1 * n)
            assert found.pixels.min() >= poisoning.LOW - 1e-6 and found.pixels.max() <= poisoning.HIGH + 1e-6
            check_simplex(found.labels)
            assert (method == poisoning.CLEAN) == torch.equal(found.labels, start.labels), method
            learner, _ = bench.learner()
            for t in range(3):
                plain, batch = learner.batches(t), poisoning.poisoned(bench, learner, found).batches(t)
                others = ~torch.isin(batch.ids, start.ids)
                assert torch.equal(batch.rows[0][others], plain.rows[0][others])
                assert torch.equal(batch.rows[1][others].argmax(1), plain.rows[1][others])
                assert torch.equal(batch.ids, plain.ids)


def test_a_metagradient_step_raises_the_target_loss_and_more_than_chance(studied: Path):
    clean, mgd, noise = (
        poisoning.effect(studied, method, poisoning.SMOOTH)["target_loss"]
        for method in (poisoning.CLEAN, poisoning.MGD, poisoning.NOISE)
    )
    assert mgd > clean + 0.02 and mgd > noise


def test_nothing_changed_is_the_clean_training(studied: Path):
    """Soft labels of one class are labels: the same loss as the study's own learner, to rounding."""
    with opened_study(studied) as bench:
        learner, state = bench.learner()
        target, plan = target_of(learner, bench.target), keep_all(0, learner.steps)
        phi = float(replay(learner, state, target, plan, len(bench.train)).phi)
    assert poisoning.effect(studied, poisoning.CLEAN, poisoning.SMOOTH)["target_loss"] == pytest.approx(phi, rel=1e-4)


def test_what_is_published_says_who_changed_what_and_who_is_spotted(studied: Path):
    poison_evidence.publish_poisons(studied)
    with connect(studied.parents[1], studied.name) as connection:
        effects = connection.sql("select method, recipe, spotted from poison_effects").fetchall()
        samples = connection.sql("select method, label_change, g, place from poisons").fetchall()
    assert len(effects) == 10 and len(samples) == 4 * 6
    spotted = {method: value for method, recipe, value in effects if recipe == poisoning.SMOOTH}
    assert spotted[poisoning.CLEAN] is None and spotted[poisoning.FLIPS] > 0.6
    assert all(change == pytest.approx(1.0) for method, change, *_ in samples if method == poisoning.FLIPS)
    assert all(1 <= place <= 60 for *_, place in samples)


def test_gradient_cancelling_cancels_the_gradient(studied: Path):
    from mgd_core.cancelling import _gradient, cancelled, corrupted

    with opened_study(studied) as bench:
        learner, state = bench.learner()
        start = poisoning.start_of(bench)
        at = corrupted(state.theta, target_of(learner, bench.target), 0.3)
        assert float((at - state.theta).norm()) <= 0.3 * float(state.theta.norm()) * (1 + 1e-5)
        rows = (bench.train.pixels[:30], torch.eye(10)[bench.train.labels[:30]])
        columns, kinds = [start.pixels, start.labels], poisoning.kinds_of(bench, start)
        found = cancelled(learner.objective, learner.layout, at, rows, kinds, columns, 30)
        of = [_gradient(learner.objective, learner.layout, at, r, graph=False) for r in (rows, columns, tuple(found))]
    assert (of[0] + of[2]).norm() < 0.9 * (of[0] + of[1]).norm()
