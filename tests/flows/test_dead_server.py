"""A Prefect server that is killed in the middle of a curation: the results are there, and the command ends soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.runtime import server_status, stop_server
from testing.small_catalog import small_catalog

ENDS_WITHIN = 30.0  # seconds from the report to the end of the process, on idle cores


@pytest.mark.slow
def test_a_curation_outlives_its_server_and_says_what_is_lost(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "flows.cli", "curate", str(small_catalog(tmp_path)), "--home", str(home)]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert running.stdout is not None and running.stderr is not None
    said, reported = [], 0.0
    try:
        for line in running.stderr:
            said.append(line)
            if "round 0: train" in line and (pid := server_status(home).pid):
                os.kill(pid, signal.SIGKILL)
            if "compare: oracle" in line:  # the last training
                reported = time.monotonic()
        status = running.wait(120)
    finally:
        running.kill()
        stop_server(home)
    took, told = time.monotonic() - reported, "".join(said)
    assert status == 0 and "its history of this run is lost" in told and "Traceback" not in told, told
    assert "metagradient descent" in running.stdout.read() and took < ENDS_WITHIN
    (run,) = (home / "runs").iterdir()
    assert (run / "report.html").exists() and (run / "subset.npy").exists()
