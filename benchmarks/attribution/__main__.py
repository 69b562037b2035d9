"""Do influences predict what happens without some training examples? LDS of ours and of peers, and where it fails.

`python -m benchmarks.attribution` takes the study that comes with mgd (catalogs/studies/fashion.toml: an MLP on 1,000
Fashion-MNIST pictures, Adam with eps_root), attributes the mean test loss of each class and the losses of 20 single
pictures in one reverse sweep, trains again without random 1, 5, 20 and 50 % of the pictures, and reports the linear
datamodelling score (LDS; mgd_core.analysis.attribution) as its mean over the 30 outputs with the bootstrap's 95 %
interval over subsets (`lds_1`, `lds_50`; bars 0.95 and 0.90). Beside it

* **peers** at the same trained model, pictures and subsets: kronfluence's EK-FAC, TRAK, and dattri's influence
  functions, each at the best of the settings that were tried, chosen on the very score that is reported
  (`best_peer_1`). They need `--python PATH` of an interpreter that has kronfluence, traker and dattri; a peer that
  cannot be imported is reported as missing. Only the 1 and 50 % subsets are asked of them;
* **a small GPT** on the Python language reference (benchmarks.attribution.corpus): `lds_gpt_1`, bar 0.9;
* **the failure**: the same pictures with plain momentum SGD at a learning rate that fits better, and Adam without
  eps_root; metasmoothness S along two directions stands beside each LDS.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP: on shared cores, threads must sleep

import numpy as np
import torch
from torch import Tensor

from benchmarks._envelope import emit
from benchmarks.attribution import corpus as attribution_corpus
from benchmarks.attribution import peers as attribution_peers
from mgd_core.analysis.attribution import Drops, Floats, drop_sets, intervals, predicted_changes, trained_without
from mgd_core.analysis.smoothness import direction, reweighted, score
from mgd_core.engine.replay import replay, train
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.models.classification import MEASURES, Outputs, each_class, each_example
from mgd_core.plans.plan import keep_all
from mgd_core.training.determinism import deterministic
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import Adam, Sgd, State
from mgd_core.training.schedules import warmup_cosine
from tasks.catalog.files import find_study
from tasks.modality.classification.modality import ClassificationRecipe, begin_study
from tasks.modality.registry import open_study

SHARES, SINGLE, SEED, H = (0.01, 0.05, 0.2, 0.5), 20, 0, 0.1
SUBSETS, QUICK_SUBSETS = 60, 12
MODELS = 5  # of other seeds, for TRAK's ensembles
GPT = {"train": 512, "test": 128, "steps": 96, "subsets": 24}
QUICK_GPT = {"train": 128, "test": 32, "steps": 24, "subsets": 8}
GROUPS = 8  # of the GPT's test pieces: outputs

Values = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """A recipe's scores: LDS by share with its interval, S by direction, and what the model can do."""

    recipe: str
    lds: dict[float, tuple[float, float, float]]
    smoothness: tuple[float, ...]
    accuracy: float
    failure: str = ""


@dataclass(frozen=True)
class PeerRow:
    """A peer's LDS at 1 and 50 %, each at its best setting; ``settings``: both of all; ``failure``: why no (more)."""

    peer: str
    best: str
    lds_1: float
    lds_50: float
    settings: dict[str, tuple[float, float]]
    failure: str


@dataclass(frozen=True)
class Subsets:
    """Drops (subsets, n) of a share and the true changes (subsets, Q) of the outputs."""

    drops: Drops
    true: Floats


def main() -> None:
    """Print the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer subsets and a shorter GPT: under 45 s")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers (default: this one)")
    parser.add_argument("--full", action="store_true", help="three times as many subsets")
    parser.add_argument("--only", choices=("pictures", "gpt"), help="one part of it; the other's keys are null")
    options = parser.parse_args()
    subsets = QUICK_SUBSETS if options.quick else SUBSETS * (3 if options.full else 1)
    shares = (0.01, 0.5) if options.quick else SHARES
    rows, peers, gpt = list[Row](), list[PeerRow](), dict[str, float]()
    with tempfile.TemporaryDirectory() as home, deterministic(1):
        if options.only != "gpt":
            with open_study(begin_study(Path(home), find_study("fashion"))) as study:
                torch.set_num_threads(1)
                rows, found = pictures(study, shares, subsets, options.quick)
                peers = compare_peers(study, found, options.python, Path(home), options.quick)
        if options.only != "pictures":
            gpt = language(QUICK_GPT if options.quick else GPT)
    figures = {
        "lds_1": rows[0].lds[0.01][0] if rows else None,
        "lds_50": rows[0].lds[0.5][0] if rows else None,
        "lds_gpt_1": gpt.get("lds"),
        "best_peer_1": max((peer.lds_1 for peer in peers if peer.best), default=None),
        "subsets": subsets,
        "recipes": [
            {
                "recipe": row.recipe,
                "lds": {f"{share:g}": list(score) for share, score in row.lds.items()},
                "smoothness": list(row.smoothness),
                "accuracy": row.accuracy,
                "failure": row.failure,
            }
            for row in rows
        ],
        "peers": [asdict(peer) for peer in peers],
        "gpt": gpt,
    }
    emit("attribution", figures)


def pictures(
    study: ClassificationRecipe, shares: tuple[float, ...], subsets: int, quick: bool
) -> tuple[list[Row], dict[float, Subsets]]:
    """The study's recipe and those that are known to fail; and the subsets of the first."""
    learner, state = study.learner()
    rough = replace(learner, learning_rates=warmup_cosine(learner.steps, 0.1, 16, 5e-3))
    recipes = [
        ("Adam, eps_root 1e-5", learner),
        ("Adam, eps_root 0", replace(learner, optimizer=Adam(b2=0.98, eps=1e-8, eps_root=0.0))),
        ("momentum SGD, lr 0.1", replace(rough, optimizer=Sgd(momentum=0.9))),
    ]
    print(f"{'recipe':<24}{'accuracy':>9}{'S':>16}  LDS, mean over 30 outputs, and its 95 % interval")
    rows, found = list[Row](), dict[float, Subsets]()
    for number, (name, recipe) in enumerate(recipes):
        chosen = shares if number == 0 else (0.01,)
        count = subsets if number == 0 or quick else subsets // 2
        row, own = measure(study, name, recipe, recipe.optimizer.init(state.theta), chosen, count)
        rows.append(row)
        found |= own if number == 0 else {}
        spread = ", ".join(f"{s:.3f}" for s in row.smoothness)
        told = "  ".join(f"{share:.0%}: {s:.3f} ({a:.3f} .. {b:.3f})" for share, (s, a, b) in row.lds.items())
        print(f"{name:<24}{row.accuracy:>9.3f}{spread:>16}  {told}{row.failure}", flush=True)
    return rows, found


def measure(
    study: ClassificationRecipe, name: str, learner: Learner, state: State, shares: tuple[float, ...], subsets: int
) -> tuple[Row, dict[float, Subsets]]:
    """Attribute 30 outputs of a recipe in one sweep, and train again without subsets."""
    outputs, n = outputs_of(study, learner), len(study.train)
    theta = train(learner, state)[0].theta
    phi = outputs.values(theta).detach().double().numpy()
    with torch.no_grad():
        logits = outputs.objective.logits(learner.layout.unflatten(theta), study.test.pixels)
    accuracy = (logits.argmax(1) == study.test.labels).double().mean().item()
    smooth = tuple(_smoothness(learner, state, theta, n, number) for number in range(2))
    try:
        g = replay(learner, state, outputs, keep_all(0, learner.steps), n).example
    except NonFiniteError as error:
        return Row(name, {share: (0.0, 0.0, 0.0) for share in shares}, smooth, accuracy, f"  {error}"), {}
    lds, found = {}, {}
    for share in shares:
        drops = drop_sets(n, share, subsets, SEED)
        true = np.stack([outputs.values(trained_without(learner, state, d).theta).detach().double() for d in drops])
        found[share] = Subsets(drops, true - phi)
        lds[share] = tuple(intervals(predicted_changes(g, drops), true - phi, SEED)[-1])
    return Row(name, lds, smooth, accuracy), found  # type: ignore[arg-type]


def outputs_of(study: ClassificationRecipe, learner: Learner) -> Outputs:
    """The mean loss of each class, and the losses of the first test pictures."""
    labels = study.target.labels
    groups = torch.cat([each_class(labels, len(study.classes)), each_example(len(labels))[:SINGLE]])
    rows = study.target.pixels, labels
    return Outputs(learner.objective, learner.layout, rows, groups, MEASURES["loss"])  # type: ignore[arg-type]


def compare_peers(
    study: ClassificationRecipe, found: dict[float, Subsets], python: str, home: Path, quick: bool
) -> list[PeerRow]:
    """Each peer's best setting at 1 %, its LDS there and at 50 %, and why there is none."""
    learner, state = study.learner()
    groups = outputs_of(study, learner).groups.double().numpy()
    models = [study.learner(seed=seed)[1] for seed in range(1, 1 if quick else MODELS)]
    thetas = [train(learner, s)[0].theta for s in (state, *models)]
    arrays = {"x": study.train.pixels.flatten(1), "xt": study.target.pixels.flatten(1)}
    arrays |= {"y": study.train.labels, "yt": study.target.labels, "models": torch.tensor(len(thetas))}
    for i, theta in enumerate(thetas):
        arrays |= {f"{i}/{k.removeprefix('layers.')}": p for k, p in learner.layout.unflatten(theta).items()}
    np.savez(home / "trained.npz", **{name: x.numpy() for name, x in arrays.items()})  # type: ignore[arg-type]
    print(f"{'peer':<14}{'LDS 1 %':>9}{'50 %':>8}  best setting, of how many")
    return [_peer(name, home / "trained.npz", python, groups, found) for name in attribution_peers.NAMES]


def _peer(peer: str, trained: Path, python: str, groups: Floats, found: dict[float, Subsets]) -> PeerRow:
    settings, failure = attribution_peers.measure(peer, trained, python)
    lds = {name: (_lds(groups @ m, found[0.01]), _lds(groups @ m, found[0.5])) for name, m in settings.items()}
    best = max(lds, key=lambda name: lds[name][0], default="")
    at_1, at_50 = (max((both[i] for both in lds.values()), default=0.0) for i in (0, 1))
    row = PeerRow(peer, best, at_1, at_50, lds, failure)
    figures = f"{row.lds_1:>9.3f}{row.lds_50:>8.3f}  {best}, of {len(lds)}" if lds else f"{'-':>9}{'-':>8} "
    print(f"{peer:<14}{figures} {failure}", flush=True)
    return row


def _lds(g: Floats, found: Subsets) -> float:
    predicted = -found.drops.astype(np.float64) @ g.T
    return float(intervals(predicted, found.true, SEED, draws=1)[-1].score)


def language(sizes: dict[str, int]) -> dict[str, float]:
    """The GPT: LDS at 1 % (at least three pieces), its S, and its loss before and after."""
    data = attribution_corpus.corpus(sizes["train"], sizes["test"])
    optimizer = Adam(b2=0.98, eps=1e-8, eps_root=1e-6)
    learner, state = attribution_corpus.gpt(data, optimizer, 4e-3, sizes["steps"], min(64, sizes["train"] // 2))
    outputs, n = attribution_corpus.PieceLosses(learner, data.test, GROUPS), sizes["train"]
    found = replay(learner, state, outputs, keep_all(0, learner.steps), n)
    drops = drop_sets(n, max(0.01, 3 / n), sizes["subsets"], SEED)
    values = [outputs.values(trained_without(learner, state, d).theta).detach().double() for d in drops]
    true = np.stack(values) - found.phi.double().numpy()
    mean = intervals(predicted_changes(found.example, drops), true, SEED)[-1]
    smooth = _smoothness(learner, state, found.final.theta, n, 0)
    before, after = (float(x.mean()) for x in (outputs.values(state.theta).detach(), found.phi))
    print(
        f"GPT, {learner.layout.length:,} parameters, {learner.steps} steps, {n} pieces: loss {before:.2f} "
        f"-> {after:.2f} nats a character, S {smooth:.3f}\n"
        f"LDS at {drops[0].mean():.1%}: {mean.score:.3f} ({mean.low:.3f} .. {mean.high:.3f})",
        flush=True,
    )
    spread = {"low": mean.low, "high": mean.high, "smoothness": smooth, "loss": after, "loss_untrained": before}
    return {"lds": mean.score, **spread, **{name: float(size) for name, size in sizes.items()}}


def _smoothness(learner: Learner, state: State, theta: Tensor, n: int, number: int) -> float:
    """S along one direction of example weights."""
    v = H * direction(n, SEED, number)
    ends = [train(reweighted(learner, k * v), state)[0].theta for k in (1, 2)]
    return fmean([score(theta, *ends)])


if __name__ == "__main__":
    main()
