"""What the flows of a study share: the device that its units take in turn, and how such a flow is run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from prefect import Flow

from flows.runtime.device import device_lock
from flows.runtime.runners import run_flow
from tasks.homes.opening import own
from tasks.modality.classification.modality import StudyRun


def study_device(directory: Path) -> AbstractContextManager[None]:
    """The lock of the device that the study in ``directory`` runs on."""
    run = StudyRun.load(directory)
    own(run.home, run.id)
    return device_lock(run.home, run.catalog.runtime.device)


def run_study(flow: Flow[..., str], study: str, home: Path, *arguments: object) -> Path:
    """Run a study's flow in this process; returns its directory."""
    return Path(run_flow(flow, study, str(home), *arguments))
