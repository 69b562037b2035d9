"""What a poisoning study publishes: what each method did, which samples it changed, and how a curator would spot them.

A curator has a clean target (here: the test split) and takes the metagradient of the poisoned training by example
weight: samples that raise the loss have a positive g. `spotted` is the chance that a changed sample has a higher g than
one that was not (the area under the ROC curve): 0.5 is blind, 1 is perfect.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mgd_core.engine.replay import replay
from mgd_core.engine.reverse import NonFiniteError
from mgd_core.plans.plan import keep_all
from tasks.files.artefacts import publish_json, read_json
from tasks.modality.classification.modality import ClassificationRecipe
from tasks.modality.classification.pictures import SPREAD
from tasks.modality.registry import open_study
from tasks.studies.paired_drops import paired_drop
from tasks.studies.poisoning import CLEAN, METHODS, PLAIN, SMOOTH, answers, effect, poisons_of
from tasks.studies.poisons import poisoned, start_of
from tasks.tables.published import publish


def inspect(directory: Path, method: str) -> list[float]:
    """g of every training sample under a clean target, of the training on a poisoned set; empty if it has none."""
    with open_study(directory) as study:
        found = poisons_of(directory, method)
        key = study.run.key("inspect", method, study.catalog.poison.model_dump(mode="json"))
        path = study.run.work("poison", f"{key[:16]}-{method}-inspected.json")
        if not path.exists():
            learner, state = study.learner()
            target, plan = study.task(learner, study.test).target, keep_all(0, learner.steps)
            try:
                g = replay(poisoned(study, learner, found), state, target, plan, len(study.train)).example
            except NonFiniteError:
                g = torch.zeros(0)
            publish_json(path, {"g": g.double().tolist()})
        values: list[float] = read_json(path)["g"]
        return values


def publish_poisons(directory: Path) -> None:
    """Publish the tables `poisons` and `poison_effects`."""
    with open_study(directory) as study:
        effects: list[dict[str, Any]] = []
        samples: list[dict[str, Any]] = []
        for method in METHODS:
            rows = _samples(study, directory, method) if method != CLEAN else []
            samples += rows
            spotted = _spotted(rows, len(study.train))
            for recipe in (SMOOTH, PLAIN):
                seen = spotted if recipe == SMOOTH else None
                scores = effect(directory, method, recipe)
                row = {"method": method, "recipe": recipe, "changed": len(rows), "spotted": seen, **scores}
                drop = paired_drop(*(answers(directory, of, recipe) for of in (CLEAN, method)))
                effects.append(row | {"drop": drop.mean, "drop_error": drop.error})
        publish(study.run.home, study.run.id, "poisons", 0, pa.Table.from_pylist(samples))
        publish(study.run.home, study.run.id, "poison_effects", 0, pa.Table.from_pylist(effects))


def _samples(study: ClassificationRecipe, directory: Path, method: str) -> list[dict[str, Any]]:
    found, start, g = poisons_of(directory, method), start_of(study), np.array(inspect(directory, method))
    places = (-g).argsort(kind="stable").argsort(kind="stable") + 1 if len(g) else None
    rows = []
    for i, at in enumerate(found.ids.tolist()):
        rows.append(
            {
                "method": method,
                "uid": study.train.uids[at],
                "label": study.classes[int(study.train.labels[at])],
                "shown_as": study.classes[int(found.labels[i].argmax())],
                "pixel_change": float((found.pixels[i] - start.pixels[i]).abs().mean() * SPREAD),
                "label_change": float((found.labels[i] - start.labels[i]).abs().sum() / 2),
                "g": None if places is None else float(g[at]),
                "place": None if places is None else int(places[at]),
            }
        )
    return rows


def _spotted(rows: Sequence[dict[str, Any]], n: int) -> float | None:
    """The area under the ROC curve, from the places of the changed ones among n samples."""
    places = [row["place"] for row in rows]
    if not places or None in places:
        return None
    m = len(places)
    return (m * (n + 1) - sum(places) - m * (m + 1) / 2) / (m * (n - m))
