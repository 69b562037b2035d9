"""The flow `attribute`: influences of a study's training samples on its outputs, and their check by retraining.

Composition only: the units say themselves what is done, so the same command goes on after any interruption.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.runtime.session import record_session
from flows.study_units import run_study, study_device
from tasks import attribution
from tasks.modality.classification.modality import begin_study
from tasks.study_options import find_study


@task(name="sweep-outputs", task_run_name="sweep {number}", cache_policy=NO_CACHE, persist_result=False)
def sweep_outputs(directory: Path, number: int) -> Path:
    """Train, and differentiate some of the outputs."""
    with study_device(directory):
        return attribution.sweep_outputs(directory, number)


@task(name="retrain", task_run_name="without {share} from {first}", cache_policy=NO_CACHE, persist_result=False)
def retrain(directory: Path, share: float, first: int) -> Path:
    """Train without each of a block of random subsets."""
    with study_device(directory):
        return attribution.retrain(directory, share, first)


@flow(name="attribute", flow_run_name="attribute {study}", on_running=[record_session], log_prints=False)
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
