"""What is known of the samples of a run's pool: by the model that round 0 trained, and by the pool itself."""

from __future__ import annotations

from safetensors import safe_open

from tasks.modality.base import Seen, States
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import modality_of
from tasks.runs.run import Run
from tasks.scoring.fitting import Known
from tasks.scoring.numbers import numbers_of

LAST, EARLY = "round-000", "round-000-early"


def known_of(recipe: PoolRecipe, seen: bool = True) -> Known:
    """What is known of a run's samples when round 0 is trained; not ``seen``: by the pool itself only."""
    found = modality_of(recipe.catalog).seen(recipe, states_of(recipe.run)) if seen else Seen()
    return Known(found, numbers_of(recipe.pool))


def states_of(run: Run) -> States:
    """The model that round 0 ended with, and the one at its first probe step, if it has probe steps: what was learnt
    late is often what should not be."""
    with safe_open(run.work("round-000", "replayed.safetensors"), "pt") as file:
        steps = sorted(int(name.removeprefix("theta.")) for name in file.keys() if name.startswith("theta."))  # noqa: SIM118
        found = {LAST: file.get_tensor("theta")}
        return found | ({EARLY: file.get_tensor(f"theta.{steps[0]}")} if steps else {})
