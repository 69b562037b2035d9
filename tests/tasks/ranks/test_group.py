"""Groups of ranks live as long as their task: killed, failed or finished, none is left, and the work goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mgd_core.engine.state_files import CorruptState
from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.curation import estimate, rounds
from tasks.curation.begin import identity
from tasks.ranks.group import run_on_ranks
from testing.rank_groups import processes
from testing.small_catalog import begun, small_catalog

CPUS = ("cpu", "cpu")
TRAINING = "testing.slow_training:train"


def killed(place: Path, kind: str) -> None:
    """Kill one of the group once it trains."""
    while not (place / "progress").exists():
        time.sleep(0.05)
    os.kill(processes(str(place))[kind][0], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["member", "agent"])
def test_a_killed_group_starts_again_and_ends_with_the_same_bytes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for place, kill in ((tmp_path / "whole", False), (tmp_path / "killed", True)):
        place.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(place))
        if kill:
            threading.Thread(target=killed, args=(place, kind), daemon=True).start()
        run_on_ranks(TRAINING, (place, 0.1), CPUS)
        found.append((place / "digest").read_text())
    assert found[0] == found[1]
    assert not any(processes(str(tmp_path)).values())


@pytest.mark.slow
def test_a_killed_task_leaves_no_rank(tmp_path: Path) -> None:
    said = (
        f"from pathlib import Path; from tasks.ranks.group import run_on_ranks as r; place = Path({str(tmp_path)!r}); "
    )
    call = f"r({TRAINING!r}, (place, 0.5), {CPUS!r})"
    task = subprocess.Popen([sys.executable, "-c", said + call], env={**os.environ, "TMPDIR": str(tmp_path)})
    while not (tmp_path / "progress").exists():
        assert task.poll() is None
        time.sleep(0.05)
    assert {kind: len(pids) for kind, pids in processes(str(tmp_path)).items()} == {"agent": 1, "member": 2}
    task.kill()
    until = time.monotonic() + 30
    while any(processes(str(tmp_path)).values()) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(processes(str(tmp_path)).values())


@pytest.mark.slow
def test_what_a_rank_raises_is_raised(tmp_path: Path) -> None:
    states = tmp_path / "states" / "rank-1-of-2"
    states.mkdir(parents=True)
    (states / "forward-0.safetensors").write_bytes(b"no such file")
    with pytest.raises(CorruptState, match="rank-1-of-2"):
        run_on_ranks(TRAINING, (tmp_path, 0.0), CPUS)


@pytest.mark.slow
def test_a_round_over_ranks_is_that_of_one_process(tmp_path: Path) -> None:
    found = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        directory = begun(small_catalog(folder, ("threads = 1", f"threads = 1\nranks = {count}")), folder / "home")
        estimate.prepare(directory)
        found.append(
            load_file(rounds.train_round(directory, 0, True, devices=CPUS[:count]).with_suffix(".safetensors"))
        )
    one, two = found
    assert one.keys() == two.keys()
    for key, expected in one.items():
        torch.testing.assert_close(two[key], expected, rtol=2e-3, atol=1e-5 * float(expected.abs().max() + 1e-30))


def test_the_number_of_ranks_is_part_of_a_run_and_fits_its_batch(tmp_path: Path) -> None:
    catalog = load_catalog(small_catalog(tmp_path))
    assert "ranks" not in identity(catalog, tmp_path)["runtime"]
    assert identity(load_catalog(tmp_path / "small.toml", {"runtime.ranks": 2}), tmp_path)["runtime"]["ranks"] == 2
    with pytest.raises(CatalogError, match="33 ranks share a batch of 32"):
        load_catalog(tmp_path / "small.toml", {"runtime.ranks": 33})
    with pytest.raises(CatalogError, match="need as many devices"):
        load_catalog(tmp_path / "small.toml", {"runtime.ranks": 2, "runtime.device": "cuda"})
