"""The units of many tasks' losses: what each is after round 0 on the target, recorded once and used by all rounds.

Before round 0 there are none, and losses are in units of what chance gives (`ManyAsked.bind`): so measure
metasmoothness, which gates the rounds, the filters that know the target, and the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mgd_core.engine.traversal import Target
from mgd_core.errors import UserError
from mgd_core.models.multitask import MultiTask
from mgd_core.training.learner import Learner
from tasks.files.artefacts import read_json
from tasks.modality.recipe import PoolRecipe, TargetTask

Units = Mapping[str, float]


class SolvedTask(UserError, ValueError):
    """A task that has no loss left after round 0, so that nothing can be in units of it."""


def units_of(recipe: PoolRecipe, first: Path | None, learner: Learner, theta: torch.Tensor) -> dict[str, float] | None:
    """What the tasks' losses are divided by; None where there is one task, or nats are added.

    ``first``: the record of round 0; None: this is its training, which ended with ``theta``.

    Raises:
        SolvedTask: a loss is 0.
    """
    if not recipe.catalog.targets.many or recipe.catalog.targets.normalise == "none":
        return None
    if first is not None:
        return dict(read_json(first)["units"])
    task = recipe.targets(learner).target
    assert isinstance(task, MultiTask)
    found = task.losses(theta)
    solved = [name for name, loss in found.items() if not loss > 0]
    if solved:
        raise SolvedTask(
            f"catalog '{recipe.catalog.name}': after round 0 task '{solved[0]}' has a loss of {found[solved[0]]:g}, so "
            'nothing can be told in units of it (targets.normalise = "start"). Take a harder task or leave it out, or '
            'add nats: normalise = "none"'
        )
    return found


def in_units(task: TargetTask, units: Units | None) -> TargetTask:
    """A target or held-out target of many tasks in these units; any other as it is."""
    return replace(task, units=units) if isinstance(task, MultiTask) and units is not None else task


def lowered(recipe: PoolRecipe, learner: Learner, round: int, first: Path | None) -> Target:
    """What a round lowers: phi and its gradient."""
    task = recipe.lowered(learner, round)
    return lambda theta: in_units(task, units_of(recipe, first, learner, theta)).target(theta)


def scores(recipe: PoolRecipe, learner: Learner, theta: torch.Tensor, units: Units | None) -> dict[str, Any]:
    """By part (target, heldout) its score; of many tasks also ``tasks``: rows of the table of scores by task."""
    tasks = recipe.targets(learner)
    found: dict[str, Any] = {
        part: in_units(task, units).score(theta)
        for part, task in (("target", tasks.target), ("heldout", tasks.heldout))
    }
    rows = [
        {"task": name, "part": part, "loss": one.loss, "metric": one.metric, "value": one.value}
        for part, score in found.items()
        for name, one in getattr(score, "tasks", {}).items()
    ]
    return {**found, "tasks": rows}
