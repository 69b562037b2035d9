"""Poisoning a tiny study: what is allowed, what it does, and that a curator sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgd_core.derivatives import value_and_gradient
from mgd_core.metaparameters import check_simplex
from mgd_core.plans import keep_all
from mgd_core.replay import replay
from tasks import poison_ascent, poison_evidence, poisoning, poisons, study_targets
from tasks.paired_drops import paired_drop
from tasks.pictures import Pictures
from tasks.queries import connect
from tasks.study_bench import StudyBench, begin_study, opened_study
from tasks.study_targets import target_of
from testing.small_study import small_study


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("poison")
    changes = [("steps = 6", "steps = 20"), ("share = 0.1\nsteps = 2", "share = 0.1\nsteps = 4\ncancel_steps = 5")]
    return begin_study(tmp / "home", small_study(tmp, *changes))


def test_poisons_are_pictures_and_probabilities_and_only_those_samples_change(studied: Path):
    with opened_study(studied) as bench:
        start, n = poisons.start_of(bench), len(bench.train)
        for method in poisoning.METHODS:
            found = poisoning.poisons_of(studied, method)
            assert torch.equal(found.ids, start.ids) and len(found.ids) == round(0.1 * n)
            assert found.pixels.min() >= poisons.LOW - 1e-6 and found.pixels.max() <= poisons.HIGH + 1e-6
            check_simplex(found.labels)
            assert (method == poisoning.CLEAN) == torch.equal(found.labels, start.labels), method
            learner, _ = bench.learner()
            for t in range(3):
                plain, batch = learner.batches(t), poisons.poisoned(bench, learner, found).batches(t)
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
    from mgd_core.cancelling import cancelled, corrupted

    def gradient(rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Of the summed losses, at theta `at`."""
        n = len(rows[0])
        weights = torch.full((n,), float(n))  # a batch's loss is the mean
        return value_and_gradient(learner.objective, learner.layout, at, rows, weights)[1]

    with opened_study(studied) as bench:
        learner, state = bench.learner()
        start = poisons.start_of(bench)
        at = corrupted(state.theta, target_of(learner, bench.target), 0.3)
        assert float((at - state.theta).norm()) <= 0.3 * float(state.theta.norm()) * (1 + 1e-5)
        rows = (bench.train.pixels[:30], torch.eye(10)[bench.train.labels[:30]])
        columns, kinds = [start.pixels, start.labels], poisons.kinds_of(bench, start)
        found = cancelled(learner.objective, learner.layout, at, rows, kinds, columns, 30)
        of = [gradient(tuple(r)) for r in (rows, columns, found)]
    assert (of[0] + of[2]).norm() < 0.9 * (of[0] + of[1]).norm()


def test_steps_with_momentum_and_decay_are_those_written_out(tmp_path: Path):
    """Two steps against the rule by hand: pixels by the sign of the summed directions, each as large as another."""
    options = 'momentum = 0.5\ndecay = "linear"\nstep_size = 0.1'
    directory = begin_study(tmp_path / "home", small_study(tmp_path, ("share = 0.1", f"share = 0.1\n{options}")))
    with opened_study(directory) as bench:
        z, motion = poisons.start_of(bench), torch.zeros(())
        for number, size in ((1, 0.1), (2, 0.05)):
            g = _metagradient(bench, z, bench.target)[0]
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
    with opened_study(directory) as bench:
        parts = [poison_ascent.seen(bench, number) for number in (1, 2, 1)]
        assert parts[0].uids == parts[2].uids != parts[1].uids
        place = {uid: i for i, uid in enumerate(bench.target.uids)}
        for part in parts:
            at = [place[uid] for uid in part.uids]
            assert len(set(at)) == len(part) == 20
            assert torch.equal(part.pixels, bench.target.pixels[at]) and torch.equal(
                part.labels, bench.target.labels[at]
            )
        learner, state = bench.learner()
        target = poison_ascent.target_in_parts(bench, learner)
        for part in parts[:2]:
            assert torch.equal(target(state.theta)[0], target_of(learner, part)(state.theta)[0])
        start = poisons.start_of(bench)
        g = _metagradient(bench, start, parts[0])[0]
        found = poisons.load_poison(poisoning.poison_step(directory, 1))
        span = 0.1 * (poisons.HIGH - poisons.LOW)
        assert torch.equal(found.pixels, (start.pixels + span * g.sign()).clamp(poisons.LOW, poisons.HIGH))


def test_a_target_in_pieces_is_the_target(studied: Path, monkeypatch: pytest.MonkeyPatch):
    with opened_study(studied) as bench:
        learner, state = bench.learner()
        whole = target_of(learner, bench.target)(state.theta)
        monkeypatch.setattr(study_targets, "PIECE", 7)
        pieces = target_of(learner, bench.target)(state.theta)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(whole, pieces, strict=True))
        right = study_targets.right_of(learner, state.theta, bench.test)
        scores = study_targets.score_of(bench, learner, state.theta)
    assert len(right) == 40 and float(right.double().mean()) == scores["test_accuracy"]


def _metagradient(bench: StudyBench, found: poisons.Poison, seen: Pictures) -> list[torch.Tensor]:
    learner, state = bench.learner()
    kinds, plan = poisons.kinds_of(bench, found), keep_all(0, learner.steps)
    poisoned, target = poisons.poisoned(bench, learner, found), target_of(learner, seen)
    result = replay(poisoned, state, target, plan, len(bench.train), metaparameters=kinds)
    return [result.sums[kind.name] for kind in kinds]
