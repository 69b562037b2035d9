"""Poisoning a tiny study: what is allowed, what it does, and that a curator sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgd_core.autodiff.derivatives import value_and_gradient
from mgd_core.engine.metaparameters import check_simplex
from mgd_core.engine.replay import replay
from mgd_core.plans.plan import keep_all
from tasks.modality.classification import targets
from tasks.modality.classification.modality import ClassificationRecipe, begin_study
from tasks.modality.classification.pictures import Pictures
from tasks.modality.registry import open_study
from tasks.studies import poison_ascent, poison_evidence, poisoning, poisons
from tasks.studies.paired_drops import paired_drop
from tasks.tables.queries import connect
from testing.small_study import small_study


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("poison")
    changes = [("steps = 6", "steps = 20"), ("share = 0.1\nsteps = 2", "share = 0.1\nsteps = 4\ncancel_steps = 5")]
    return begin_study(tmp / "home", small_study(tmp, *changes))


def test_poisons_are_pictures_and_probabilities_and_only_those_samples_change(studied: Path):
    with open_study(studied) as study:
        start, n = poisons.start_of(study), len(study.train)
        for method in poisoning.METHODS:
            found = poisoning.poisons_of(studied, method)
            assert torch.equal(found.ids, start.ids) and len(found.ids) == round(0.1 * n)
            assert found.pixels.min() >= poisons.LOW - 1e-6 and found.pixels.max() <= poisons.HIGH + 1e-6
            check_simplex(found.labels)
            assert (method == poisoning.CLEAN) == torch.equal(found.labels, start.labels), method
            learner, _ = study.learner()
            for t in range(3):
                plain, batch = learner.batches(t), poisons.poisoned(study, learner, found).batches(t)
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
    with open_study(studied) as study:
        learner, state = study.learner()
        target, plan = study.task(learner, study.target).target, keep_all(0, learner.steps)
        phi = float(replay(learner, state, target, plan, len(study.train)).phi)
    assert poisoning.effect(studied, poisoning.CLEAN, poisoning.SMOOTH)["target_loss"] == pytest.approx(phi, rel=1e-4)


def test_what_is_published_says_who_changed_what_and_who_is_spotted(studied: Path):
    poison_evidence.publish_poisons(studied)
    with connect(studied.parents[1], studied.name) as connection:
        effects = connection.sql("select method, recipe, spotted from poison_effects").fetchall()
        drops = connection.sql("select method, recipe, test_accuracy, drop, drop_error from poison_effects").fetchall()
        samples = connection.sql("select method, label_change, g, place from poisons").fetchall()
    assert len(effects) == 10 and len(samples) == 4 * 6
    spotted = {method: value for method, recipe, value in effects if recipe == poisoning.SMOOTH}
    assert spotted[poisoning.CLEAN] is None and spotted[poisoning.FLIPS] > 0.6
    assert all(change == pytest.approx(1.0) for method, change, *_ in samples if method == poisoning.FLIPS)
    assert all(1 <= place <= 60 for *_, place in samples)
    accuracy = {(method, recipe): found for method, recipe, found, *_ in drops}
    for method, recipe, found, drop, error in drops:
        assert drop == pytest.approx(accuracy["clean", recipe] - found)
        assert (drop, error) == paired_drop(*(poisoning.answers(studied, of, recipe) for of in ("clean", method)))


def test_gradient_cancelling_cancels_the_gradient(studied: Path):
    from mgd_core.analysis.cancelling import cancelled, corrupted

    def gradient(rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Of the summed losses, at theta `at`."""
        n = len(rows[0])
        weights = torch.full((n,), float(n))  # a batch's loss is the mean
        return value_and_gradient(learner.objective, learner.layout, at, rows, weights)[1]

    with open_study(studied) as study:
        learner, state = study.learner()
        start = poisons.start_of(study)
        at = corrupted(state.theta, study.task(learner, study.target).target, 0.3)
        assert float((at - state.theta).norm()) <= 0.3 * float(state.theta.norm()) * (1 + 1e-5)
        rows = (study.train.pixels[:30], torch.eye(10)[study.train.labels[:30]])
        columns, kinds = [start.pixels, start.labels], poisons.kinds_of(study, start)
        found = cancelled(learner.objective, learner.layout, at, rows, kinds, columns, 30)
        of = [gradient(tuple(r)) for r in (rows, columns, found)]
    assert (of[0] + of[2]).norm() < 0.9 * (of[0] + of[1]).norm()


def test_steps_with_momentum_and_decay_are_those_written_out(tmp_path: Path):
    """Two steps against the rule by hand: pixels by the sign of the summed directions, each as large as another."""
    options = 'momentum = 0.5\ndecay = "linear"\nstep_size = 0.1'
    directory = begin_study(tmp_path / "home", small_study(tmp_path, ("share = 0.1", f"share = 0.1\n{options}")))
    with open_study(directory) as study:
        z, motion = poisons.start_of(study), torch.zeros(())
        for number, size in ((1, 0.1), (2, 0.05)):
            g = _metagradient(study, z, study.target)[0]
            motion = 0.5 * motion + g / g.abs().mean()
            span = poisons.HIGH - poisons.LOW
            pixels = (z.pixels + size * span * motion.sign()).clamp(poisons.LOW, poisons.HIGH)
            before, z = z, poisons.load_poison(poisoning.poison_step(directory, number))
            assert torch.equal(z.pixels, pixels)
            moved = (z.labels - before.labels).abs().amax(1)
            assert moved.min() > 0 and moved.max() <= size * (1 + 1e-5)
            check_simplex(z.labels)


def test_a_step_may_see_another_part_of_the_target_each_time(tmp_path: Path):
    directory = begin_study(tmp_path / "home", small_study(tmp_path, ("share = 0.1", "share = 0.1\ntarget_batch = 20")))
    with open_study(directory) as study:
        parts = [poison_ascent.seen(study, number) for number in (1, 2, 1)]
        assert parts[0].uids == parts[2].uids != parts[1].uids
        place = {uid: i for i, uid in enumerate(study.target.uids)}
        for part in parts:
            at = [place[uid] for uid in part.uids]
            assert len(set(at)) == len(part) == 20
            assert torch.equal(part.pixels, study.target.pixels[at]) and torch.equal(
                part.labels, study.target.labels[at]
            )
        learner, state = study.learner()
        target = poison_ascent.target_in_parts(study, learner)
        for part in parts[:2]:
            assert torch.equal(target(state.theta)[0], study.task(learner, part).target(state.theta)[0])
        start = poisons.start_of(study)
        g = _metagradient(study, start, parts[0])[0]
        found = poisons.load_poison(poisoning.poison_step(directory, 1))
        span = 0.1 * (poisons.HIGH - poisons.LOW)
        assert torch.equal(found.pixels, (start.pixels + span * g.sign()).clamp(poisons.LOW, poisons.HIGH))


def test_a_target_in_pieces_is_the_target(studied: Path, monkeypatch: pytest.MonkeyPatch):
    with open_study(studied) as study:
        learner, state = study.learner()
        whole = study.task(learner, study.target).target(state.theta)
        monkeypatch.setattr(targets, "PIECE", 7)
        pieces = study.task(learner, study.target).target(state.theta)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(whole, pieces, strict=True))
        right = study.task(learner, study.test).correct(state.theta)
        scores = study.scores(learner, state.theta)
    assert len(right) == 40 and float(right.double().mean()) == scores["test_accuracy"]


def _metagradient(study: ClassificationRecipe, found: poisons.Poison, seen: Pictures) -> list[torch.Tensor]:
    learner, state = study.learner()
    kinds, plan = poisons.kinds_of(study, found), keep_all(0, learner.steps)
    poisoned, target = poisons.poisoned(study, learner, found), study.task(learner, seen).target
    result = replay(poisoned, state, target, plan, len(study.train), metaparameters=kinds)
    return [result.sums[kind.name] for kind in kinds]
