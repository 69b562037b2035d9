"""Attribution of a study: influences of all training samples on its outputs, in units that are found done again.

Sweeps take `attribution.together` outputs at a time, each sweep one training and one reverse traversal of it whole.
The check trains again without random subsets, a block of subsets a unit. mgd_core.attribution has the mathematics.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mgd_core.attribution import Floats, drop_sets, intervals, predicted_changes, trained_without
from mgd_core.classification import MEASURES, Outputs, each_class, each_example
from mgd_core.learner import Learner
from mgd_core.plans import keep_all
from mgd_core.replay import replay, train
from tasks.artefacts import publish_bytes, publish_json, read_json
from tasks.progress import announce, say
from tasks.study_bench import StudyBench, opened_study
from tasks.tables import publish

BLOCK = 10  # subsets of one unit of retraining
MEAN = "mean"


def sweeps(directory: Path) -> range:
    """Numbers of the reverse sweeps that the outputs need."""
    with opened_study(directory) as bench:
        return range(-(-len(output_names(bench)) // bench.study.attribution.together))


def sweep_outputs(directory: Path, number: int) -> Path:
    """Differentiate the outputs of one sweep; returns the path of its tensors, `g` (Q, n) and `phi` (Q,)."""
    with opened_study(directory) as bench:
        path = _sweep_path(bench, number)
        if not path.exists():
            learner, state = bench.learner()
            outputs = outputs_of(bench, learner)
            first = number * bench.study.attribution.together
            chosen = replace(outputs, groups=outputs.groups[first : first + bench.study.attribution.together])
            steps = learner.steps

            def on(what: str, t: int) -> None:
                done = t + 1 if what == "step" else steps - t
                announce(f"sweep {number}: {'train' if what == 'step' else 'reverse'}", done, steps)

            found = replay(learner, state, chosen, keep_all(0, steps), len(bench.train), on=on)
            tensors = {"g": found.example.cpu(), "phi": found.phi.cpu(), "theta": found.final.theta.cpu()}
            publish_bytes(path, to_safetensors({name: x.contiguous() for name, x in tensors.items()}))
        return path


def publish_influences(directory: Path) -> None:
    """Publish the tables `influences` and `outputs`."""
    with opened_study(directory) as bench:
        g, phi = load_influences(bench)
        names, groups = output_names(bench), _groups(bench)
        labels = [bench.classes[i] for i in bench.train.labels.tolist()]
        n = len(bench.train)
        influences = {
            "uid": bench.train.uids * len(names),
            "label": labels * len(names),
            "output": [name for name in names for _ in range(n)],
            "g": g.double().flatten().numpy(),
        }
        outputs = {
            "output": names,
            "measure": [bench.study.attribution.measure] * len(names),
            "value": phi.double().numpy(),
            "pictures": (groups > 0).sum(1).to(torch.int32).numpy(),
        }
        publish(bench.home, bench.id, "influences", 0, pa.table(influences))
        publish(bench.home, bench.id, "outputs", 0, pa.table(outputs))


def retrainings(directory: Path) -> list[tuple[float, int]]:
    """The units of the check: share and first subset of each; says what they will cost."""
    with opened_study(directory) as bench:
        o = bench.study.attribution
        found = [(share, first) for share in o.shares for first in range(0, o.retrainings, BLOCK)]
        say(
            f"validation: {o.retrainings} trainings for each of {len(o.shares)} shares; finished ones are not run again"
        )
        return found


def retrain(directory: Path, share: float, first: int) -> Path:
    """Train without each subset of a block; returns the path of its record, with the outputs' values."""
    with opened_study(directory) as bench:
        path = _block_path(bench, share, first)
        if not path.exists():
            learner, state = bench.learner()
            outputs = outputs_of(bench, learner)
            drops, total = _drops(bench, share), bench.study.attribution.retrainings
            values = []
            for number in range(first, min(first + BLOCK, total)):
                theta = trained_without(learner, state, drops[number]).theta
                values.append(outputs.values(theta).detach().double().tolist())
                announce(f"train without {share:.0%}", number + 1, total)
            publish_json(path, {"values": values})
        return path


def publish_validation(directory: Path) -> None:
    """Publish the tables `drops` and `datamodelling_scores`."""
    with opened_study(directory) as bench:
        o, names = bench.study.attribution, output_names(bench)
        g, phi = load_influences(bench)
        drops: list[pa.Table] = []
        scores: list[dict[str, Any]] = []
        for share in o.shares:
            predicted = predicted_changes(g, _drops(bench, share))
            measured = _values(bench, share) - phi.double().numpy()
            columns = {"subset": np.repeat(np.arange(len(measured)), len(names)), "output": names * len(measured)}
            columns |= {"predicted": predicted.ravel(), "measured": measured.ravel()}
            drops.append(pa.table({"share": np.full(measured.size, share), **columns}))
            found = intervals(predicted, measured, o.seed, o.draws)
            scores += [
                {"share": share, "output": name, **one._asdict(), "subsets": o.retrainings}
                for name, one in zip([*names, MEAN], found, strict=True)
            ]
        publish(bench.home, bench.id, "drops", 0, pa.concat_tables(drops))
        publish(bench.home, bench.id, "datamodelling_scores", 0, pa.Table.from_pylist(scores))


def outputs_of(bench: StudyBench, learner: Learner) -> Outputs:
    """The study's outputs as targets."""
    objective, rows = learner.objective, (bench.target.pixels, bench.target.labels)
    measure = MEASURES[bench.study.attribution.measure]
    return Outputs(objective, learner.layout, rows, _groups(bench), measure)  # type: ignore[arg-type]


def output_names(bench: StudyBench) -> list[str]:
    """Names of the outputs, in order."""
    return bench.classes if bench.study.attribution.outputs == "class" else bench.target.uids


def load_influences(bench: StudyBench) -> tuple[Tensor, Tensor]:
    """g (Q, n) and phi (Q,) of all outputs."""
    parts = [load_file(_sweep_path(bench, number)) for number in sweeps(bench.directory)]
    return torch.cat([part["g"] for part in parts]), torch.cat([part["phi"] for part in parts])


def values_without(bench: StudyBench, dropped: Floats) -> tuple[Floats, float, float]:
    """Outputs (Q,) of the model trained without some samples, and its accuracy on the test split with and without."""
    learner, state = bench.learner()
    outputs = outputs_of(bench, learner)
    theta = trained_without(learner, state, dropped.astype(np.bool_)).theta
    whole = train(learner, state)[0].theta
    accuracies = [_accuracy(bench, outputs, x) for x in (whole, theta)]
    return outputs.values(theta).detach().double().numpy(), accuracies[0], accuracies[1]


def _accuracy(bench: StudyBench, outputs: Outputs, theta: Tensor) -> float:
    with torch.no_grad():
        logits = outputs.objective.logits(outputs.layout.unflatten(theta), bench.test.pixels)
    return (logits.argmax(1) == bench.test.labels).double().mean().item()


def _groups(bench: StudyBench) -> Tensor:
    if bench.study.attribution.outputs == "example":
        return each_example(len(bench.target)).to(bench.target.labels.device)
    return each_class(bench.target.labels, len(bench.classes))


def _drops(bench: StudyBench, share: float) -> Any:
    o = bench.study.attribution
    return drop_sets(len(bench.train), share, o.retrainings, o.seed)


def _values(bench: StudyBench, share: float) -> Floats:
    blocks = range(0, bench.study.attribution.retrainings, BLOCK)
    return np.concatenate([np.array(read_json(_block_path(bench, share, first))["values"]) for first in blocks])


def _sweep_path(bench: StudyBench, number: int) -> Path:
    o = bench.study.attribution
    key = bench.key("sweep", o.outputs, o.measure, o.together)
    return bench.work("attribution", f"{key[:16]}-sweep-{number:03d}.safetensors")


def _block_path(bench: StudyBench, share: float, first: int) -> Path:
    o = bench.study.attribution
    key = bench.key("retrain", o.outputs, o.measure, o.seed, o.retrainings)
    return bench.work("attribution", f"{key[:16]}-without-{share:g}-from-{first:04d}.json")
