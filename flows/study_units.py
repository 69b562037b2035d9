"""What the flows of a study share: the devices that its units take in turn, and how such a flow is run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from prefect import Flow

from flows.pool_building import device_of
from flows.runtime.runners import run_flow
from tasks.modality.classification.modality import StudyRun


def study_device(directory: Path) -> AbstractContextManager[None]:
    """A device for a training of the study in ``directory``."""
    return device_of(StudyRun.load(directory))


def run_study(flow: Flow[..., str], study: str, home: Path, *arguments: object) -> Path:
    """Run a study's flow in this process; returns its directory."""
    return Path(run_flow(flow, study, str(home), *arguments))
