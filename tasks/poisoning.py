"""How fragile is a training set? A few of its samples are changed so that the trained model does badly.

z are the pixels and the labels (probabilities of classes) of a share of the training pictures (tasks.poisons), moved by
metagradient ascent on the target loss (tasks.poison_ascent; Engstrom et al. 2025, arXiv 2503.13751, section 5).
Beside it random noise, flipped labels, and gradient cancelling (mgd_core.cancelling) at the same share. Effects are
measured on the test split, which the attack has not seen, with the study's recipe and with a plain one; and how a
curator would spot the changed samples: by their metagradient under a clean target.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from mgd_core.cancelling import cancelled, corrupted
from mgd_core.classification import ClassificationObjective
from mgd_core.learner import Learner
from mgd_core.optimizers import Sgd, State
from mgd_core.order import generator
from mgd_core.replay import train
from mgd_core.reverse import NonFiniteError
from mgd_core.schedules import one_cycle
from mgd_core.streams import POISONS
from tasks import poison_ascent
from tasks.artefacts import publish_json, read_json
from tasks.measures import diverged
from tasks.poisons import HIGH, LOW, Poison, kinds_of, load_poison, poisoned, save_poison, start_of
from tasks.progress import announce
from tasks.study_bench import StudyBench, opened_study
from tasks.study_targets import SCORES, right_of, score_of

CLEAN, MGD, NOISE, FLIPS, CANCEL = "clean", "mgd", "noise", "flips", "cancel"
METHODS = (CLEAN, MGD, NOISE, FLIPS, CANCEL)
SMOOTH, PLAIN = "smooth", "plain"


def poison_step(directory: Path, number: int) -> Path:
    """Poisons after ``number`` metagradient steps (0: as they are); returns the path of their tensors."""
    with opened_study(directory) as bench:
        o = bench.study.poison
        falling = o.steps if o.decay == "linear" else None
        key = bench.key("poison", o.share, o.step_size, o.momentum, falling, o.target_batch, o.labels, o.seed)
        path = bench.work("poison", f"{key[:16]}-mgd-{number:03d}.safetensors")
        if not path.exists():
            at = poison_ascent.begin(bench)
            if number:
                before = poison_step(directory, number - 1)
                at = poison_ascent.stepped(bench, poison_ascent.load_ascent(before, at.found.ids.device), number)
            announce("poison: metagradient steps", number, o.steps)
            at.save(path)
        return path


def rival(directory: Path, method: str) -> Path:
    """Poisons of a method that differentiates no training; returns the path of their tensors."""
    with opened_study(directory) as bench:
        o = bench.study.poison
        key = bench.key("poison", o.share, o.labels, o.seed, method, o.cancel_steps, o.cancel_budgets)
        path = bench.work("poison", f"{key[:16]}-{method}.safetensors")
        if not path.exists():
            save_poison(path, _cancelling(bench) if method == CANCEL else _random(bench, method))
        return path


def poisons_of(directory: Path, method: str) -> Poison:
    """The poisons of a method; none changed for `clean`."""
    with opened_study(directory) as bench:
        if method == CLEAN:
            return start_of(bench)
        path = poison_step(directory, bench.study.poison.steps) if method == MGD else rival(directory, method)
        return load_poison(path, bench.train.pixels.device)


def effect(directory: Path, method: str, recipe: str) -> dict[str, float]:
    """Loss and accuracy of a training on the set that a method poisoned, by the study's recipe or the plain one."""
    scores: dict[str, float] = _effect(directory, method, recipe)["scores"]
    return scores


def answers(directory: Path, method: str, recipe: str) -> list[int]:
    """Whether that training is right on each test picture, 1 or 0: for errors of paired differences."""
    right: list[int] = _effect(directory, method, recipe)["right"]
    return right


def _effect(directory: Path, method: str, recipe: str) -> dict[str, Any]:
    with opened_study(directory) as bench:
        o, found = bench.study.poison, poisons_of(directory, method)
        key = bench.key("effect", method, recipe, o.model_dump(mode="json"))
        path = bench.work("poison", f"{key[:16]}-{method}-{recipe}.json")
        if not path.exists():
            publish_json(path, trained_on(bench, found, recipe))
            announce(f"poison: {recipe} recipe", METHODS.index(method) + 1, len(METHODS))
        known: dict[str, Any] = read_json(path)
        return known


def _random(bench: StudyBench, method: str) -> Poison:
    start, draw = start_of(bench), generator(bench.study.poison.seed, POISONS, 1)
    m, classes = start.labels.shape
    shift = torch.from_numpy(draw.integers(1, classes, size=m)).to(start.ids.device)
    wrong = F.one_hot((start.labels.argmax(1) + shift) % classes, classes).to(start.labels)
    labels = wrong if bench.study.poison.labels else start.labels
    if method == FLIPS:
        return replace(start, labels=wrong)
    noise = torch.from_numpy(draw.random(tuple(start.pixels.shape))).to(start.pixels)
    return Poison(start.ids, LOW + (HIGH - LOW) * noise, labels)


def _cancelling(bench: StudyBench) -> Poison:
    """At the budget of those tried that costs the study's recipe most target accuracy: the baseline's best setting."""
    o, start = bench.study.poison, start_of(bench)
    learner, state = bench.learner()
    theta, kinds = train(learner, state)[0].theta, kinds_of(bench, start)
    clean = torch.ones(len(bench.train), dtype=torch.bool, device=start.ids.device)
    clean[start.ids] = False
    rows = (bench.train.pixels[clean], F.one_hot(bench.train.labels[clean], len(bench.classes)).to(start.labels))
    best, lowest = start, float("inf")
    for budget in o.cancel_budgets:
        at = corrupted(theta, poison_ascent.target_in_parts(bench, learner), budget)
        columns = [start.pixels, 0.9 * start.labels + 0.1 / start.labels.shape[1]]
        pixels, labels = cancelled(learner.objective, learner.layout, at, rows, kinds, columns, o.cancel_steps)
        found = Poison(start.ids, pixels, labels if o.labels else start.labels)
        accuracy = trained_on(bench, found, SMOOTH)["scores"]["target_accuracy"]
        if accuracy < lowest:
            best, lowest = found, accuracy
    return best


def trained_on(bench: StudyBench, found: Poison, recipe: str) -> dict[str, Any]:
    """``scores`` of a training on poisons, and which test pictures it has ``right``; the worst if it diverges."""
    learner, state = bench.learner() if recipe == SMOOTH else plain_recipe(bench)
    try:
        theta = train(poisoned(bench, learner, found), state)[0].theta
    except NonFiniteError:
        return {"scores": diverged(SCORES), "right": [0] * len(bench.test)}
    right = right_of(learner, theta, bench.test).int().tolist()
    return {"scores": score_of(bench, learner, theta), "right": right}


def plain_recipe(bench: StudyBench) -> tuple[Learner, State]:
    """What the smooth recipe is not: momentum SGD, one cycle, normalisation after the activation, max pooling, unscaled
    logits, other initial weights and another data order."""
    o = bench.study.poison
    plain = bench.study.model.model_copy(update={"pool": "max", "logit_scale": 1.0})
    if plain.norm != "none":
        plain = plain.model_copy(update={"norm": "after"})
    learner, state = bench.learner(plain, seed=bench.study.learner.seed + 1)
    optimizer = Sgd(momentum=0.9, weight_decay=5e-4)
    rates = one_cycle(learner.steps, o.plain_learning_rate, max(1, learner.steps // 5))
    assert isinstance(learner.objective, ClassificationObjective)
    return replace(learner, optimizer=optimizer, learning_rates=rates), optimizer.init(state.theta)
