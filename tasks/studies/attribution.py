"""Attribution of a study: influences of all training samples on its outputs, in units that are found done again.

Sweeps take `attribution.together` outputs at a time, each sweep one training and one reverse traversal of it whole. The
check trains again without random subsets, a block of subsets a unit. mgd_core.analysis.attribution has the mathematics.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import Tensor

from mgd_core.analysis.attribution import Floats, drop_sets, intervals, predicted_changes, trained_without
from mgd_core.engine.replay import replay, train
from mgd_core.models.classification import MEASURES, Outputs, each_class, each_example
from mgd_core.plans.plan import keep_all
from mgd_core.training.learner import Learner
from tasks.files.artefacts import publish_json, read_json
from tasks.files.progress import announce, announcing, say
from tasks.modality.classification.modality import ClassificationRecipe
from tasks.modality.registry import open_study
from tasks.modality.tensor_files import publish_tensors
from tasks.tables.published import publish

BLOCK = 10  # subsets of one unit of retraining
MEAN = "mean"


def sweeps(directory: Path) -> range:
    """Numbers of the reverse sweeps that the outputs need."""
    with open_study(directory) as study:
        return range(-(-len(output_names(study)) // study.catalog.attribution.together))


def sweep_outputs(directory: Path, number: int) -> Path:
    """Differentiate the outputs of one sweep; returns the path of its tensors, `g` (Q, n) and `phi` (Q,)."""
    with open_study(directory) as study:
        path = _sweep_path(study, number)
        if not path.exists():
            learner, state = study.learner()
            outputs = outputs_of(study, learner)
            first = number * study.catalog.attribution.together
            chosen = replace(outputs, groups=outputs.groups[first : first + study.catalog.attribution.together])
            steps, what = learner.steps, f"sweep {number}"
            on = announcing(f"{what}: train", steps, f"{what}: reverse", steps)
            found = replay(learner, state, chosen, keep_all(0, steps), len(study.train), on=on)
            tensors = {"g": found.example.cpu(), "phi": found.phi.cpu(), "theta": found.final.theta.cpu()}
            publish_tensors(path, tensors)
        return path


def publish_influences(directory: Path) -> None:
    """Publish the tables `influences` and `outputs`."""
    with open_study(directory) as study:
        g, phi = load_influences(study)
        names, groups = output_names(study), _groups(study)
        labels = [study.classes[i] for i in study.train.labels.tolist()]
        n = len(study.train)
        influences = {
            "uid": study.train.uids * len(names),
            "label": labels * len(names),
            "output": [name for name in names for _ in range(n)],
            "g": g.double().flatten().numpy(),
        }
        outputs = {
            "output": names,
            "measure": [study.catalog.attribution.measure] * len(names),
            "value": phi.double().numpy(),
            "pictures": (groups > 0).sum(1).to(torch.int32).numpy(),
        }
        publish(study.run.home, study.run.id, "influences", 0, pa.table(influences))
        publish(study.run.home, study.run.id, "outputs", 0, pa.table(outputs))


def retrainings(directory: Path) -> list[tuple[float, int]]:
    """The units of the check: share and first subset of each; says what they will cost."""
    with open_study(directory) as study:
        o = study.catalog.attribution
        found = [(share, first) for share in o.shares for first in range(0, o.retrainings, BLOCK)]
        say(
            f"validation: {o.retrainings} trainings for each of {len(o.shares)} shares; finished ones are not run again"
        )
        return found


def retrain(directory: Path, share: float, first: int) -> Path:
    """Train without each subset of a block; returns the path of its record, with the outputs' values."""
    with open_study(directory) as study:
        path = _block_path(study, share, first)
        if not path.exists():
            learner, state = study.learner()
            outputs = outputs_of(study, learner)
            drops, total = _drops(study, share), study.catalog.attribution.retrainings
            values = []
            for number in range(first, min(first + BLOCK, total)):
                theta = trained_without(learner, state, drops[number]).theta
                values.append(outputs.values(theta).detach().double().tolist())
                announce(f"train without {share:.0%}", number + 1, total)
            publish_json(path, {"values": values})
        return path


def publish_validation(directory: Path) -> None:
    """Publish the tables `drops` and `datamodelling_scores`."""
    with open_study(directory) as study:
        o, names = study.catalog.attribution, output_names(study)
        g, phi = load_influences(study)
        drops: list[pa.Table] = []
        scores: list[dict[str, Any]] = []
        for share in o.shares:
            predicted = predicted_changes(g, _drops(study, share))
            measured = _values(study, share) - phi.double().numpy()
            columns = {"subset": np.repeat(np.arange(len(measured)), len(names)), "output": names * len(measured)}
            columns |= {"predicted": predicted.ravel(), "measured": measured.ravel()}
            drops.append(pa.table({"share": np.full(measured.size, share), **columns}))
            found = intervals(predicted, measured, o.seed, o.draws)
            scores += [
                {"share": share, "output": name, **one._asdict(), "subsets": o.retrainings}
                for name, one in zip([*names, MEAN], found, strict=True)
            ]
        publish(study.run.home, study.run.id, "drops", 0, pa.concat_tables(drops))
        publish(study.run.home, study.run.id, "datamodelling_scores", 0, pa.Table.from_pylist(scores))


def outputs_of(study: ClassificationRecipe, learner: Learner) -> Outputs:
    """The study's outputs as targets."""
    objective, rows = learner.objective, (study.target.pixels, study.target.labels)
    measure = MEASURES[study.catalog.attribution.measure]
    return Outputs(objective, learner.layout, rows, _groups(study), measure)  # type: ignore[arg-type]


def output_names(study: ClassificationRecipe) -> list[str]:
    """Names of the outputs, in order."""
    return study.classes if study.catalog.attribution.outputs == "class" else study.target.uids


def load_influences(study: ClassificationRecipe) -> tuple[Tensor, Tensor]:
    """g (Q, n) and phi (Q,) of all outputs."""
    parts = [load_file(_sweep_path(study, number)) for number in sweeps(study.run.directory)]
    return torch.cat([part["g"] for part in parts]), torch.cat([part["phi"] for part in parts])


def values_without(study: ClassificationRecipe, dropped: Floats) -> tuple[Floats, float, float]:
    """Outputs (Q,) of the model trained without some samples, and its accuracy on the test split with and without."""
    learner, state = study.learner()
    outputs = outputs_of(study, learner)
    theta = trained_without(learner, state, dropped.astype(np.bool_)).theta
    whole = train(learner, state)[0].theta
    accuracies = [_accuracy(study, outputs, x) for x in (whole, theta)]
    return outputs.values(theta).detach().double().numpy(), accuracies[0], accuracies[1]


def _accuracy(study: ClassificationRecipe, outputs: Outputs, theta: Tensor) -> float:
    with torch.no_grad():
        logits = outputs.objective.logits(outputs.layout.unflatten(theta), study.test.pixels)
    return (logits.argmax(1) == study.test.labels).double().mean().item()


def _groups(study: ClassificationRecipe) -> Tensor:
    if study.catalog.attribution.outputs == "example":
        return each_example(len(study.target)).to(study.target.labels.device)
    return each_class(study.target.labels, len(study.classes))


def _drops(study: ClassificationRecipe, share: float) -> Any:
    o = study.catalog.attribution
    return drop_sets(len(study.train), share, o.retrainings, o.seed)


def _values(study: ClassificationRecipe, share: float) -> Floats:
    blocks = range(0, study.catalog.attribution.retrainings, BLOCK)
    return np.concatenate([np.array(read_json(_block_path(study, share, first))["values"]) for first in blocks])


def _sweep_path(study: ClassificationRecipe, number: int) -> Path:
    o = study.catalog.attribution
    key = study.run.key("sweep", o.outputs, o.measure, o.together)
    return study.run.work("attribution", f"{key[:16]}-sweep-{number:03d}.safetensors")


def _block_path(study: ClassificationRecipe, share: float, first: int) -> Path:
    o = study.catalog.attribution
    key = study.run.key("retrain", o.outputs, o.measure, o.seed, o.retrainings)
    return study.run.work("attribution", f"{key[:16]}-without-{share:g}-from-{first:04d}.json")
