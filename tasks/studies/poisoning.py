"""How fragile is a training set? A few of its samples are changed so that the trained model does badly.

z are the pixels and the labels (probabilities of classes) of a share of the training pictures (tasks.studies.poisons),
moved by metagradient ascent on the target loss (tasks.studies.poison_ascent; Engstrom et al. 2025, arXiv 2503.13751,
section 5). Beside it random noise, flipped labels, and gradient cancelling (mgd_core.analysis.cancelling) at the same
share. Effects are measured on the test split, which the attack has not seen, with the study's recipe and with a plain
one; and how a curator would spot the changed samples: by their metagradient under a clean target.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from mgd_core.analysis.cancelling import cancelled, corrupted
from mgd_core.engine.replay import train
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.models.classification import ClassificationObjective
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import Sgd, State
from mgd_core.training.order import generator
from mgd_core.training.schedules import one_cycle
from mgd_core.training.streams import POISONS
from tasks.evaluation.measures import diverged
from tasks.files.artefacts import publish_json, read_json
from tasks.files.progress import announce
from tasks.modality.classification.modality import SCORES, ClassificationRecipe
from tasks.modality.registry import open_study
from tasks.studies import poison_ascent
from tasks.studies.poisons import HIGH, LOW, Poison, kinds_of, load_poison, poisoned, save_poison, start_of

CLEAN, MGD, NOISE, FLIPS, CANCEL = "clean", "mgd", "noise", "flips", "cancel"
METHODS = (CLEAN, MGD, NOISE, FLIPS, CANCEL)
SMOOTH, PLAIN = "smooth", "plain"


def poison_step(directory: Path, number: int) -> Path:
    """Poisons after ``number`` metagradient steps (0: as they are); returns the path of their tensors."""
    with open_study(directory) as study:
        o = study.catalog.poison
        falling = o.steps if o.decay == "linear" else None
        key = study.run.key("poison", o.share, o.step_size, o.momentum, falling, o.target_batch, o.labels, o.seed)
        path = study.run.work("poison", f"{key[:16]}-mgd-{number:03d}.safetensors")
        if not path.exists():
            at = poison_ascent.begin(study)
            if number:
                before = poison_step(directory, number - 1)
                at = poison_ascent.stepped(study, poison_ascent.load_ascent(before, at.found.ids.device), number)
            announce("poison: metagradient steps", number, o.steps)
            at.save(path)
        return path


def rival(directory: Path, method: str) -> Path:
    """Poisons of a method that differentiates no training; returns the path of their tensors."""
    with open_study(directory) as study:
        o = study.catalog.poison
        key = study.run.key("poison", o.share, o.labels, o.seed, method, o.cancel_steps, o.cancel_budgets)
        path = study.run.work("poison", f"{key[:16]}-{method}.safetensors")
        if not path.exists():
            save_poison(path, _cancelling(study) if method == CANCEL else _random(study, method))
        return path


def poisons_of(directory: Path, method: str) -> Poison:
    """The poisons of a method; none changed for `clean`."""
    with open_study(directory) as study:
        if method == CLEAN:
            return start_of(study)
        path = poison_step(directory, study.catalog.poison.steps) if method == MGD else rival(directory, method)
        return load_poison(path, study.train.pixels.device)


def effect(directory: Path, method: str, recipe: str) -> dict[str, float]:
    """Loss and accuracy of a training on the set that a method poisoned, by the study's recipe or the plain one."""
    scores: dict[str, float] = _effect(directory, method, recipe)["scores"]
    return scores


def answers(directory: Path, method: str, recipe: str) -> list[int]:
    """Whether that training is right on each test picture, 1 or 0: for errors of paired differences."""
    right: list[int] = _effect(directory, method, recipe)["right"]
    return right


def _effect(directory: Path, method: str, recipe: str) -> dict[str, Any]:
    with open_study(directory) as study:
        o, found = study.catalog.poison, poisons_of(directory, method)
        key = study.run.key("effect", method, recipe, o.model_dump(mode="json"))
        path = study.run.work("poison", f"{key[:16]}-{method}-{recipe}.json")
        if not path.exists():
            publish_json(path, trained_on(study, found, recipe))
            announce(f"poison: {recipe} recipe", METHODS.index(method) + 1, len(METHODS))
        known: dict[str, Any] = read_json(path)
        return known


def _random(study: ClassificationRecipe, method: str) -> Poison:
    start, draw = start_of(study), generator(study.catalog.poison.seed, POISONS, 1)
    m, classes = start.labels.shape
    shift = torch.from_numpy(draw.integers(1, classes, size=m)).to(start.ids.device)
    wrong = F.one_hot((start.labels.argmax(1) + shift) % classes, classes).to(start.labels)
    labels = wrong if study.catalog.poison.labels else start.labels
    if method == FLIPS:
        return replace(start, labels=wrong)
    noise = torch.from_numpy(draw.random(tuple(start.pixels.shape))).to(start.pixels)
    return Poison(start.ids, LOW + (HIGH - LOW) * noise, labels)


def _cancelling(study: ClassificationRecipe) -> Poison:
    """At the budget of those tried that costs the study's recipe most target accuracy: the baseline's best setting."""
    o, start = study.catalog.poison, start_of(study)
    learner, state = study.learner()
    theta, kinds = train(learner, state)[0].theta, kinds_of(study, start)
    clean = torch.ones(len(study.train), dtype=torch.bool, device=start.ids.device)
    clean[start.ids] = False
    rows = (study.train.pixels[clean], F.one_hot(study.train.labels[clean], len(study.classes)).to(start.labels))
    best, lowest = start, float("inf")
    for budget in o.cancel_budgets:
        at = corrupted(theta, poison_ascent.target_in_parts(study, learner), budget)
        columns = [start.pixels, 0.9 * start.labels + 0.1 / start.labels.shape[1]]
        pixels, labels = cancelled(learner.objective, learner.layout, at, rows, kinds, columns, o.cancel_steps)
        found = Poison(start.ids, pixels, labels if o.labels else start.labels)
        accuracy = trained_on(study, found, SMOOTH)["scores"]["target_accuracy"]
        if accuracy < lowest:
            best, lowest = found, accuracy
    return best


def trained_on(study: ClassificationRecipe, found: Poison, recipe: str) -> dict[str, Any]:
    """``scores`` of a training on poisons, and which test pictures it has ``right``; the worst if it diverges."""
    learner, state = study.learner() if recipe == SMOOTH else plain_recipe(study)
    try:
        theta = train(poisoned(study, learner, found), state)[0].theta
    except NonFiniteError:
        return {"scores": diverged(SCORES), "right": [0] * len(study.test)}
    right = study.task(learner, study.test).correct(theta).int().tolist()
    return {"scores": study.scores(learner, theta), "right": right}


def plain_recipe(study: ClassificationRecipe) -> tuple[Learner, State]:
    """What the smooth recipe is not: momentum SGD, one cycle, normalisation after the activation, max pooling, unscaled
    logits, other initial weights and another data order."""
    o = study.catalog.poison
    plain = study.catalog.model.model_copy(update={"pool": "max", "logit_scale": 1.0})
    if plain.norm != "none":
        plain = plain.model_copy(update={"norm": "after"})
    other = replace(study, catalog=study.catalog.model_copy(update={"model": plain}))
    learner, state = other.learner(seed=study.seed + 1)
    optimizer = Sgd(momentum=0.9, weight_decay=5e-4)
    rates = one_cycle(learner.steps, o.plain_learning_rate, max(1, learner.steps // 5))
    assert isinstance(learner.objective, ClassificationObjective)
    return replace(learner, optimizer=optimizer, learning_rates=rates), optimizer.init(state.theta)
