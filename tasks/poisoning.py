"""How fragile is a training set? A few of its samples are changed so that the trained model does badly.

z are the pixels and the labels (probabilities of classes) of a share of the training pictures, kept to valid pictures
and to the simplex. A metagradient step trains, differentiates the target loss by z, and moves every pixel one way or
the other by the same amount (Engstrom et al. 2025, arXiv 2503.13751, its section on accuracy-degrading poisoning).
Beside it random noise, flipped labels, and gradient cancelling (mgd_core.cancelling) at the same share. Effects are
measured on the test split, which the attack has not seen, with the study's recipe and with a plain one; and how a
curator would spot the changed samples: by their metagradient under a clean target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mgd_core.cancelling import cancelled, corrupted
from mgd_core.classification import ClassificationObjective
from mgd_core.learner import Batch, Learner
from mgd_core.metaparameters import Inputs
from mgd_core.optimizers import Sgd, State
from mgd_core.order import generator
from mgd_core.plans import keep_all
from mgd_core.replay import replay, train
from mgd_core.reverse import NonFiniteError
from mgd_core.schedules import one_cycle
from tasks.artefacts import publish_bytes, publish_json, read_json
from tasks.pictures import MEAN, SPREAD
from tasks.progress import announce
from tasks.study_bench import StudyBench, opened_study
from tasks.study_targets import SCORES, score_of, target_of

CLEAN, MGD, NOISE, FLIPS, CANCEL = "clean", "mgd", "noise", "flips", "cancel"
METHODS = (CLEAN, MGD, NOISE, FLIPS, CANCEL)
SMOOTH, PLAIN = "smooth", "plain"
STREAM = 1 << 27  # names the generator of the poisons; beyond any round
LOW, HIGH = (0 - MEAN) / SPREAD, (1 - MEAN) / SPREAD  # a pixel's range in the pictures' units


@dataclass(frozen=True)
class Poison:
    """Changed samples: positions (m,) in the training split, pixels (m, channels, side, side), soft labels (m, C)."""

    ids: Tensor
    pixels: Tensor
    labels: Tensor


def poison_step(directory: Path, number: int) -> Path:
    """Poisons after ``number`` metagradient steps (0: as they are); returns the path of their tensors."""
    with opened_study(directory) as bench:
        o = bench.study.poison
        key = bench.key("poison", o.share, o.step_size, o.labels, o.seed)
        path = bench.work("poison", f"{key[:16]}-mgd-{number:03d}.safetensors")
        if not path.exists():
            found = start_of(bench)
            if number:
                found = _stepped(bench, _load(poison_step(directory, number - 1)))
            announce("poison: metagradient steps", number, o.steps)
            _save(path, found)
        return path


def rival(directory: Path, method: str) -> Path:
    """Poisons of a method that differentiates no training; returns the path of their tensors."""
    with opened_study(directory) as bench:
        o = bench.study.poison
        key = bench.key("poison", o.share, o.labels, o.seed, method, o.cancel_steps, o.cancel_budgets)
        path = bench.work("poison", f"{key[:16]}-{method}.safetensors")
        if not path.exists():
            _save(path, _cancelling(bench) if method == CANCEL else _random(bench, method))
        return path


def poisons_of(directory: Path, method: str) -> Poison:
    """The poisons of a method; none changed for `clean`."""
    with opened_study(directory) as bench:
        if method == CLEAN:
            return start_of(bench)
        path = poison_step(directory, bench.study.poison.steps) if method == MGD else rival(directory, method)
        return _load(path)


def effect(directory: Path, method: str, recipe: str) -> dict[str, float]:
    """Loss and accuracy of a training on the set that a method poisoned, by the study's recipe or the plain one."""
    with opened_study(directory) as bench:
        o, found = bench.study.poison, poisons_of(directory, method)
        key = bench.key("effect", method, recipe, o.model_dump(mode="json"))
        path = bench.work("poison", f"{key[:16]}-{method}-{recipe}.json")
        if not path.exists():
            publish_json(path, _trained(bench, found, recipe))
            announce(f"poison: {recipe} recipe", METHODS.index(method) + 1, len(METHODS))
        scores: dict[str, float] = read_json(path)
        return scores


def start_of(bench: StudyBench) -> Poison:
    """The samples that are to be changed, as they are: a random share of the training split."""
    o, n = bench.study.poison, len(bench.train)
    count = max(1, round(o.share * n))
    ids = torch.from_numpy(generator(o.seed, STREAM, 0).permutation(n)[:count]).sort().values
    ids = ids.to(bench.train.labels.device)
    labels = F.one_hot(bench.train.labels[ids], len(bench.classes)).to(bench.train.pixels.dtype)
    return Poison(ids, bench.train.pixels[ids], labels)


def kinds_of(bench: StudyBench, found: Poison) -> tuple[Inputs, Inputs]:
    """The metaparameters: pixels and labels of the poisons."""
    n = len(bench.train)
    pixels = Inputs(0, found.ids, n, tuple(found.pixels.shape[1:]), low=LOW, high=HIGH)
    return pixels, Inputs(1, found.ids, n, tuple(found.labels.shape[1:]), simplex=True)


def poisoned(bench: StudyBench, learner: Learner, found: Poison) -> Learner:
    """The learner that trains on the poisoned set: soft labels for all, changed rows for the poisons."""
    classes = len(bench.classes)

    def batches(t: int) -> Batch:
        batch = learner.batches(t)
        pixels, labels = batch.rows
        return batch._replace(rows=(pixels, F.one_hot(labels, classes).to(pixels.dtype)))

    pixels, labels = kinds_of(bench, found)
    return labels.placed(pixels.placed(replace(learner, batches=batches), found.pixels), found.labels)


def _stepped(bench: StudyBench, found: Poison) -> Poison:
    o, kinds = bench.study.poison, kinds_of(bench, found)
    learner, state = bench.learner()
    target, plan = target_of(learner, bench.target), keep_all(0, learner.steps)
    result = replay(poisoned(bench, learner, found), state, target, plan, len(bench.train), metaparameters=kinds)
    up, of_labels = (result.sums[kind.name] for kind in kinds)
    pixels = kinds[0].projected(found.pixels + o.step_size * (HIGH - LOW) * up.sign())
    labels = found.labels
    if o.labels:
        largest = of_labels.abs().amax(1, keepdim=True).clamp(min=torch.finfo(of_labels.dtype).tiny)
        labels = kinds[1].projected(labels + o.step_size * of_labels / largest)
    return Poison(found.ids, pixels, labels)


def _random(bench: StudyBench, method: str) -> Poison:
    start, draw = start_of(bench), generator(bench.study.poison.seed, STREAM, 1)
    m, classes = start.labels.shape
    shift = torch.from_numpy(draw.integers(1, classes, size=m)).to(start.ids.device)
    wrong = F.one_hot((start.labels.argmax(1) + shift) % classes, classes).to(start.labels)
    labels = wrong if bench.study.poison.labels else start.labels
    if method == FLIPS:
        return replace(start, labels=wrong)
    noise = torch.from_numpy(draw.random(tuple(start.pixels.shape))).to(start.pixels)
    return Poison(start.ids, LOW + (HIGH - LOW) * noise, labels)


def _cancelling(bench: StudyBench) -> Poison:
    """At the budget of those tried that hurts the study's recipe most: the baseline's own best setting."""
    o, start = bench.study.poison, start_of(bench)
    learner, state = bench.learner()
    theta, kinds = train(learner, state)[0].theta, kinds_of(bench, start)
    clean = torch.ones(len(bench.train), dtype=torch.bool, device=start.ids.device)
    clean[start.ids] = False
    rows = (bench.train.pixels[clean], F.one_hot(bench.train.labels[clean], len(bench.classes)).to(start.labels))
    best, highest = start, float("-inf")
    for budget in o.cancel_budgets:
        at = corrupted(theta, target_of(learner, bench.target), budget)
        columns = [start.pixels, 0.9 * start.labels + 0.1 / start.labels.shape[1]]
        pixels, labels = cancelled(learner.objective, learner.layout, at, rows, kinds, columns, o.cancel_steps)
        found = Poison(start.ids, pixels, labels if o.labels else start.labels)
        loss = _trained(bench, found, SMOOTH)["target_loss"]
        if loss > highest:
            best, highest = found, loss
    return best


def _trained(bench: StudyBench, found: Poison, recipe: str) -> dict[str, float]:
    learner, state = bench.learner() if recipe == SMOOTH else plain_recipe(bench)
    try:
        theta = train(poisoned(bench, learner, found), state)[0].theta
    except NonFiniteError:
        return {name: 1e9 if "loss" in name else 0.0 for name in SCORES}
    return score_of(bench, learner, theta)


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


def _save(path: Path, found: Poison) -> None:
    tensors = {"ids": found.ids, "pixels": found.pixels, "labels": found.labels}
    publish_bytes(path, to_safetensors({name: x.cpu().contiguous() for name, x in tensors.items()}))


def _load(path: Path) -> Poison:
    return Poison(**load_file(path))
