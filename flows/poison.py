"""The flow `poison`: how fragile a study's training set is, and how its curator would notice.

Composition only: the units say themselves what is done, so the same command goes on after any interruption.
"""

from __future__ import annotations

from pathlib import Path

from flows.runtime.operating import stage, unit
from flows.study_units import run_study, study_device
from tasks.catalog.files import find_study
from tasks.modality.classification.modality import StudyRun, begin_study
from tasks.studies import poison_evidence, poisoning


@unit("poison-step", "metagradient step {number}")
def poison_step(directory: Path, number: int) -> Path:
    """Train, differentiate by pixels and labels, and move them."""
    with study_device(directory):
        return poisoning.poison_step(directory, number)


@unit("poison-rival", "{method}")
def rival(directory: Path, method: str) -> Path:
    """Change the same samples by a baseline."""
    with study_device(directory):
        return poisoning.rival(directory, method)


@unit("poison-inspect", "inspect {method}")
def inspect(directory: Path, method: str) -> None:
    """Train by both recipes, and take the metagradient that a curator would take."""
    with study_device(directory):
        for recipe in (poisoning.SMOOTH, poisoning.PLAIN):
            poisoning.effect(directory, method, recipe)
        if method != poisoning.CLEAN:
            poison_evidence.inspect(directory, method)


@stage("poison")
def poison(study: str, home: str = "runs") -> str:
    """Publish the poisoning study. Returns its directory."""
    directory = begin_study(Path(home).resolve(), find_study(study))
    steps = StudyRun.load(directory).catalog.poison.steps
    methods = (poisoning.NOISE, poisoning.FLIPS, poisoning.CANCEL)
    rivals = [rival.submit(directory, method) for method in methods]
    for number in range(steps + 1):
        poison_step(directory, number)
    for future in rivals:
        future.result()
    for looked in [inspect.submit(directory, method) for method in poisoning.METHODS]:
        looked.result()
    poison_evidence.publish_poisons(directory)
    return str(directory)


def run_poison(study: str, home: Path) -> Path:
    """Run the flow in this process with the task runner that the study asks for."""
    return run_study(poison, study, home)
