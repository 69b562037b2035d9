"""DataComp's own scripts on what mgd made, and mgd's results against theirs.

They run unmodified, in a process and with an interpreter of their own, from a checkout that is given. Stand-ins, since
this is a rehearsal: `train.py` trains its scale `debug` with a tiny model and a small batch (`launch_training.py` puts
them into its table of scales), and of `baselines.py` only what needs no download is run. `evaluate.py` is not: it wants
sets from a hub, and uploads.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.rehearsal.product import FRACTION, Rehearsal, read_shards, read_uids, scores_of, wanted_samples
from benchmarks.rehearsal.steps import Fault, NotRun, check, same
from tasks.evaluation.datacomp import aggregates
from tasks.submission.eval_results import read_results

PATIENCE = 3600
"""Seconds that a script may take."""
LAUNCHER = Path(__file__).with_name("launch_training.py")
TRAINING = ("16", "1024")
"""Batch and samples seen of train.py."""


@dataclass(frozen=True)
class Official:
    """A checkout of DataComp, if there is one, and an interpreter that has what its scripts import."""

    checkout: Path | None
    python: str

    def run(self, script: str | Path, *arguments: object) -> str:
        """What a script says; raises NotRun without a checkout or its requirements, Fault where it fails."""
        if self.checkout is None:
            raise NotRun("no checkout of DataComp was given: --datacomp CHECKOUT")
        command = [self.python, "-W", "ignore", str(self.checkout / script), *(str(one) for one in arguments)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command, cwd=self.checkout, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        said = done.stdout + done.stderr
        if missing := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", said):
            raise NotRun(f"{self.python} has no module {missing[1]}, which {script} imports")
        if done.returncode:
            raise Fault(f"{script} ended with {done.returncode}: {said[-1500:]}")
        return said


def resharder(official: Official, given: Rehearsal) -> str:
    """resharder.py on the pool's tars takes the subset, and finds all of it."""
    out = given.place / "shards-of-datacomp"
    out.mkdir()
    said = official.run("resharder.py", "-i", given.shards, "-o", out, "-s", given.subset, "-j", 2)
    check("not found" not in said, f"the official resharder misses samples: {said[-500:]}")
    found, wanted = read_shards(out), wanted_samples(given)
    same("samples of the official resharder and of the pool", found, wanted)
    same("samples of the official resharder and of mgd", found, read_shards(given.place / "shards-of-mgd"))
    same("its count", json.loads((out / "meta.json").read_text())["output_count"], wanted.total())
    return f"{wanted.total():,} samples, the same as mgd's"


def baselines(official: Official, given: Rehearsal) -> str:
    """baselines.py and `mgd subset` choose the same uids."""
    metadata, told = given.pool.metadata().parent, []
    score = ("--arch", "l14", "--fraction", FRACTION)
    wanted = {"no_filter": ("no_filter", ()), "clip_score": (f"clip_score(fraction={FRACTION}, upstream=true)", score)}
    for name, (expression, options) in wanted.items():
        theirs, ours = given.place / f"baseline-{name}.npy", given.place / f"mgd-{name}.npy"
        official.run("baselines.py", "--metadata_dir", metadata, "--save_path", theirs, "--name", name, *options)
        given.worked("subset", expression, "--metadata", metadata, "--out", ours)
        same(name, np.load(ours).tobytes() == np.load(theirs).tobytes(), True)
        told.append(f"{len(read_uids(ours)):,} {name}")
    return f"{', '.join(told)}: the same bytes (basic_filter and the rest need downloads)"


def train(official: Official, given: Rehearsal, model: Path, shards: Path) -> str:
    """train.py on shards ends with a checkpoint and its record."""
    out = given.place / "trained"
    arguments: tuple[object, ...] = ("--scale", "debug", "--data_dir", shards)
    arguments += ("--output_dir", out, "--exp_name", shards.name)
    arguments += ("--precision", "fp32", "--num_checkpoints", "1", "--workers", "1", "--log_every_n_steps", "8")
    said = official.run(LAUNCHER, official.checkout, model, *TRAINING, *arguments)
    check("Done training." in said, f"train.py did not end: {said[-1500:]}")
    losses = [float(one) for one in re.findall(r"Loss: [\d.]+ \(([\d.]+)\)", said)]
    check(bool(losses) and bool(np.isfinite(losses).all()), f"train.py told no loss: {said[-1500:]}")
    check(checkpoint(given, shards).is_file(), "train.py left no checkpoint")
    return f"{TRAINING[1]} samples of {shards.name}, mean loss {losses[-1]:.3f}"


def checkpoint(given: Rehearsal, shards: Path) -> Path:
    """What train.py left."""
    return given.place / "trained" / shards.name / "checkpoints" / "epoch_latest.pt"


def info(given: Rehearsal, shards: Path) -> Path:
    """Its record."""
    return given.place / "trained" / shards.name / "info.pkl"


def aggregate(official: Official, given: Rehearsal) -> str:
    """aggregate_scores.py takes mgd's results, and its averages are mgd's to the digits that it prints."""
    said = official.run("aggregate_scores.py", "--input", given.results)
    theirs = {name: value for name, value in re.findall(r"^([\w. -]+): ([\d.]+)$", said, re.MULTILINE)}
    ours = {name: f"{value:.3f}" for name, value in aggregates(read_results(given.results).scores).items()}
    same("averages", ours, theirs)
    same("tasks that count", len(scores_of(given.results)), 38)
    record = json.loads((given.submission / "submission.json").read_text())
    same("averages of the submission", {k: f"{v:.3f}" for k, v in record["aggregates"].items()}, theirs)
    return ", ".join(f"{name} {value}" for name, value in theirs.items())
