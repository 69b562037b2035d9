"""The flow `attribute`: influences of a study's training samples on its outputs, and their check by retraining.

Composition only: the units say themselves what is done, so the same command goes on after any interruption.
"""

from __future__ import annotations

from pathlib import Path

from flows.runtime.operating import stage, unit
from flows.study_units import run_study, study_device
from tasks.catalog.files import find_study
from tasks.modality.classification.modality import begin_study
from tasks.studies import attribution


@unit("sweep-outputs", "sweep {number}")
def sweep_outputs(directory: Path, number: int) -> Path:
    """Train, and differentiate some of the outputs."""
    with study_device(directory):
        return attribution.sweep_outputs(directory, number)


@unit("retrain", "without {share} from {first}")
def retrain(directory: Path, share: float, first: int) -> Path:
    """Train without each of a block of random subsets."""
    with study_device(directory):
        return attribution.retrain(directory, share, first)


@stage("attribute")
def attribute(study: str, home: str = "runs", check: bool = False) -> str:
    """Publish the influences of a study, and with ``check`` how well they predict. Returns its directory."""
    directory = begin_study(Path(home).resolve(), find_study(study))
    for future in [sweep_outputs.submit(directory, number) for number in attribution.sweeps(directory)]:
        future.result()
    attribution.publish_influences(directory)
    if check:
        for future in [retrain.submit(directory, *unit) for unit in attribution.retrainings(directory)]:
            future.result()
        attribution.publish_validation(directory)
    return str(directory)


def run_attribute(study: str, home: Path, check: bool) -> Path:
    """Run the flow in this process with the task runner that the study asks for."""
    return run_study(attribute, study, home, check)
