"""The flow `schedule`: descend on a study's learning rates, step by step, with a grid of one-cycles beside it.

Composition only: the units say themselves what is done, so the same command goes on after any interruption.
"""

from __future__ import annotations

from pathlib import Path

from flows.runtime.operating import stage, unit
from flows.study_units import run_study, study_device
from tasks.catalog.files import find_study
from tasks.modality.classification.modality import StudyRun, begin_study
from tasks.studies import schedule_search


@unit("schedule-step", "metagradient step {number}")
def descend(directory: Path, number: int) -> Path:
    """Train, differentiate by the learning rates, and move them."""
    with study_device(directory):
        return schedule_search.descend(directory, number)


@unit("schedule-grid", "one-cycles from {first}")
def train_grid(directory: Path, first: int) -> Path:
    """Train a block of one-cycles."""
    with study_device(directory):
        return schedule_search.train_grid(directory, first)


@unit("schedule-compare")
def compare(directory: Path) -> None:
    """Train the best of both with other seeds, publish, and draw."""
    with study_device(directory):
        schedule_search.publish_schedules(directory)


@stage("schedule")
def schedule(study: str, home: str = "runs") -> str:
    """Publish the schedules of a study. Returns its directory."""
    directory = begin_study(Path(home).resolve(), find_study(study))
    steps = StudyRun.load(directory).catalog.schedule.steps
    grid = [train_grid.submit(directory, first) for first in schedule_search.grid_units(directory)]
    for number in range(steps + 1):
        descend(directory, number)
    for future in grid:
        future.result()
    compare(directory)
    return str(directory)


def run_schedule(study: str, home: Path) -> Path:
    """Run the flow in this process with the task runner that the study asks for."""
    return run_study(schedule, study, home)
