"""Two tasks in one pool: does g by task tell whose a sample is, and does the descent of their sum serve both?

`python -m benchmarks.tasks` puts the embedded emoji and fashion pools (5,686 and 10,000 pairs, about half of the
captions wrong) into one pool, and curates it three times by the same recipe: towards the sum of both tasks (subgroups
of emoji in a style never seen; kinds of clothes), and towards each alone.

* **conflict**: by g of a task in the chosen round, the chance that a pair of the task's own pool whose caption is right
  has a lower g than a pair of the other pool (AUC), for each task; `auc` is the lower. Bar: 0.8.
* **quality**: test accuracy of the chosen subsets by task, as a share of that of everything (1: no gain), mean over
  seeds; of a run's two tasks the worse one counts. Bar: that of the sum is better than that of either alone.

`--quick` shortens trainings and takes a thousand pairs of each pool, to see that it works; its figures mean little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks._envelope import emit
from tasks.files.package_data import CATALOGS
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions
from tasks.tables.published import read
from tasks.tables.queries import connect
from tasks.tables.run_folders import chosen_round

POOLS = ("emoji", "fashion")
ASKED = {
    "emoji": {"classes": "subgroup", "texts": "text", "texts_splits": ["target", "heldout"], "templates": ["{}"]},
    "fashion": {"classes": "label", "templates": ["a photo of a {}", "a picture of a {}"]},
}
"""What each task asks of its pool's sheet, whose splits are its parts."""
OWN = {"emoji": "style IS NOT NULL", "fashion": "style IS NULL"}
"""Whose pool a sample is of: only emoji have a drawing style."""
RECIPE = """
[model]
config = "{models}/emoji.json"
[learner]
steps = {steps}
batch = 256
learning_rate = 1e-3
warmup = {warmup}
weight_decay = 0.01
[descent]
rounds = {rounds}
window_start = {start}
probe_steps = {probes}
rule = "exchange"
p = 1.0
share = 0.10
momentum = 1.0
scale = "count"
max_count = 2
select = "heldout_loss"
[comparison]
subsets = ["everything", "mgd", "oracle"]
seeds = {seeds}
[runtime]
device = "{device}"
"""
FULL: dict[str, Any] = {"steps": 150, "warmup": 20, "start": 100, "probes": list(range(100, 150, 8)), "rounds": 6}
QUICK: dict[str, Any] = {"steps": 16, "warmup": 3, "start": 8, "probes": [8, 12], "rounds": 1}


def main() -> None:
    """Curate, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shortened trainings on a part of the pools")
    parser.add_argument("--home", type=Path, help="keep runs here, go on with those begun (default: a temporary place)")
    parser.add_argument("--device", default="cpu", help="where trainings run, say cpu:1 or cuda")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mgd-tasks-") as scratch:
        emit("tasks", run((options.home or Path(scratch)).resolve(), options.quick, options.device))


def run(home: Path, quick: bool, device: str = "cpu") -> dict[str, Any]:
    """Curate three times in ``home`` (finished parts are not run again) and collect the figures."""
    from flows.runtime.server import stop_server
    from flows.runtime.session import prefect_session

    written, runs, began = write_catalogs(home, quick, device), dict[str, str](), time.monotonic()
    try:
        with prefect_session(home):
            from flows.console import shown_progress
            from flows.curate import run_curate

            for name, path in written.items():
                with shown_progress():
                    runs[name] = run_curate(str(path), home).name
    finally:
        stop_server(home)
    auc, gains = conflict(home, runs["both"]), quality(home, runs)
    worse = {name: min(gains[name].values()) for name in gains}
    return {
        "quick": quick,
        "auc": min(auc.values()),
        "auc_by_task": auc,
        "bar_auc": 0.8,
        "gain_by_run_and_task": gains,
        "worse_task": worse,
        "better_than_either": worse["both"] > max(worse[name] for name in POOLS),
        "seconds": round(time.monotonic() - began),
    }


def write_catalogs(home: Path, quick: bool, device: str) -> dict[str, Path]:
    """The pool's tars, and a catalog for both tasks and for each; by name."""
    tars: list[str] = []
    for name in POOLS:
        pool = build_pool(str(CATALOGS / "pools" / name), home, BuildOptions(shard_size=1000))
        tars += [str(path) for path in sorted(pool.directory.rglob("*.tar"))[: 1 if quick else None]]
    how = QUICK if quick else FULL
    recipe = RECIPE.format(**how, models=CATALOGS / "models", seeds=[101] if quick else [101, 102, 103], device=device)
    catalogs = {"both": "".join(_task(f"tasks.{name}", name) for name in POOLS)}
    for name in POOLS:
        parts = "".join(_task(part, name, part) for part in ("target", "heldout"))
        catalogs[name] = parts + "".join(_task(f"tests.{one}", one, "test") for one in POOLS)
    for name, targets in catalogs.items():
        said = f'name = "tasks-{name}"\n[pool]\nsource = {json.dumps(tars)}\n{targets}{recipe}'
        (home / f"{name}.toml").write_text(said)
    return {name: home / f"{name}.toml" for name in catalogs}


def _task(section: str, pool: str, split: str = "") -> str:
    """A section of `targets`."""
    said = {"source": str(CATALOGS / "pools" / pool), **ASKED[pool], **({"split": split} if split else {})}
    return f"[targets.{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items())


def conflict(home: Path, run: str) -> dict[str, float]:
    """AUC of each task's g, of its own right pairs against the other pool's."""
    found, asked = (
        {},
        "SELECT g, {own}, truth_clean FROM task_metagradients JOIN samples USING (run, uid) WHERE task = ?",
    )
    with connect(home, run) as connection:
        similar = connection.execute("SELECT correlation FROM task_similarity LIMIT 1").fetchone()
        for task in POOLS:
            g, own, right = connection.execute(asked.format(own=OWN[task]), [task]).fetchnumpy().values()
            own, right = np.asarray(own, bool), np.asarray(right, bool)
            found[task] = below(np.asarray(g)[own & right], np.asarray(g)[~own])
            print(f"g by {task}: AUC of its own right pairs against the other pool {found[task]:.3f}")
    print(f"correlation of both tasks' g: {similar[0] if similar else float('nan'):+.3f}")
    return found


def below(low: np.ndarray, high: np.ndarray) -> float:
    """The chance that one of ``low`` is below one of ``high`` (Mann and Whitney's U)."""
    ranked = np.sort(high)
    above = len(high) - np.searchsorted(ranked, low, "right")
    ties = np.searchsorted(ranked, low, "right") - np.searchsorted(ranked, low, "left")
    return float((above + 0.5 * ties).mean() / len(high))


def quality(home: Path, runs: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """By run and task: test accuracy of its subset as a share of that of everything."""
    found: dict[str, dict[str, float]] = {}
    print(f"\n{'descended towards':<19}{'task':<9}{'everything':>11}{'mgd':>8}{'oracle':>8}{'gain':>7}")
    for name, run in runs.items():
        chosen = chosen_round(home, run)
        assert chosen is not None
        rows = [row for row in read(home, run, "evaluations", chosen).to_pylist() if row["metric"] == "acc1"]
        for task in POOLS:
            by_subset = {
                subset: mean(row["value"] for row in rows if (row["subset"], row["task"]) == (subset, task))
                for subset in ("everything", "mgd", "oracle")
            }
            gain = by_subset["mgd"] / by_subset["everything"]
            found.setdefault(name, {})[task] = gain
            shown = "".join(
                f"{100 * by_subset[one]:>{width}.1f}" for one, width in zip(by_subset, (11, 8, 8), strict=True)
            )
            print(f"{name:<19}{task:<9}{shown}{gain:>7.2f}")
    return found


if __name__ == "__main__":
    main()
