"""Units of a smoothness measurement: what all share (record, key, failure), and the one that trains a recipe at z."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mgd_core.optimizers import State
from mgd_core.replay import train
from mgd_core.reverse import NonFiniteError
from mgd_core.smoothness import UndefinedSmoothness
from tasks.artefacts import is_done, publish_bytes, publish_json, read_json
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe
from tasks.progress import announce
from tasks.smoothness_menu import Variant, applied

FOLDER = "smoothness"


@dataclass(frozen=True)
class Base:
    """The training at z: the state before the window's first step, the last parameters (P,) and what they score."""

    start: State
    theta: Tensor
    figures: dict[str, float]


def train_base(directory: Path, variant: Variant) -> Path:
    """Train a recipe at z and evaluate it; returns the path of its record, which says why if it failed."""
    with open_recipe(directory) as own:
        bench, record, key = unit_of(own, variant, "base")
        if not (is_done(record, key) and (failure_of(record) or record.with_suffix(".safetensors").exists())):
            record_result(record, key, partial(_train_base, bench, variant, record.with_suffix(".safetensors")))
        return record


def unit_of(bench: PoolRecipe, variant: Variant, name: str, *inputs: object) -> tuple[PoolRecipe, Path, str]:
    """The variant's recipe, and the record and key of one of its units."""
    record = bench.run.work(FOLDER, variant.folder, f"{name}.json")
    return applied(bench, variant), record, bench.run.key(FOLDER, variant.knob, variant.value, *inputs)


def failure_of(record: Path) -> str:
    """Why a unit's training failed; empty if it did not."""
    return str(read_json(record)["failure"])


def direction_unit(bench: PoolRecipe, variant: Variant, number: int, h: float) -> tuple[PoolRecipe, Path, str]:
    """The same for a direction, by its number and step."""
    return unit_of(bench, variant, f"direction-{number:02d}-h{h:g}", number, h)


def record_result(record: Path, key: str, work: partial[dict[str, Any]]) -> None:
    """Do a unit and record what it gave, or that it left the range of numbers, which is a result too."""
    try:
        publish_json(record, {"key": key, "failure": "", **work()})
    except (NonFiniteError, UndefinedSmoothness) as error:
        publish_json(record, {"key": key, "failure": str(error)})


def load_base(record: Path, device: str) -> Base:
    """The training at z of a record that :func:`train_base` wrote."""
    with safe_open(record.with_suffix(".safetensors"), "pt", device=device) as file:
        names = sorted(name for name in file.keys() if name.startswith("start."))  # noqa: SIM118
        theta, *moments = [file.get_tensor(name) for name in names]
        return Base(State(theta, tuple(moments)), file.get_tensor("final"), read_json(record))


def announce_steps(what: str, steps: int, _: str, t: int) -> None:
    """Tell how far a training is; the last two are what the engine says."""
    announce(what, t + 1, steps)


def _train_base(bench: PoolRecipe, variant: Variant, path: Path) -> dict[str, Any]:
    learner, state = bench.learner()
    on = partial(announce_steps, f"smoothness, {variant.name}: at z", learner.steps)
    start, _ = train(learner, state, 0, bench.catalog.descent.window_start, on=on)
    final, _ = train(learner, start, bench.catalog.descent.window_start, on=on)
    tasks = bench.targets(learner)
    tensors = {"final": final.theta, **{f"start.{i}": x for i, x in enumerate(start.tensors)}}
    publish_bytes(path, to_safetensors({name: x.cpu().contiguous() for name, x in tensors.items()}))
    return {
        "target_loss": tasks.target.score(final.theta).loss,
        "heldout_accuracy": tasks.heldout.score(final.theta).accuracy,
    }
