"""Can metagradient steps find a learning-rate schedule as good as a grid of one-cycles?

`python -m benchmarks.schedule` takes the study that comes with mgd (catalogs/studies/fashion.toml: an MLP on 1,000
Fashion-MNIST pictures), begins with a flat schedule, and takes at most 50 metagradient steps on 16 control points of
the learning rate (tasks.studies.schedule_search). Beside it, a grid of 210 one-cycles: 14 peaks, 5 warm-ups, 3 ends,
the best by the very loss that the descent lowers. Both are trained again with five other seeds.

`mgd` and `best_grid` are mean losses on the test split over these seeds, nats, which neither has seen; `noise` is the
standard deviation of their difference over the seeds. Bar: mgd <= best_grid + noise with grid_size >= 200.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP: on shared cores, threads must sleep

from benchmarks._envelope import emit
from tasks.catalog.files import STUDIES
from tasks.modality.classification.modality import begin_study
from tasks.modality.registry import open_study
from tasks.studies import schedule_search as search
from tasks.tables.published import read

PEAKS = [5e-4 * 2 ** (i / 2) for i in range(14)]  # 5e-4 to 4.5e-2
GRID = {"grid_peaks": PEAKS, "grid_warmups": [0.05, 0.15, 0.3, 0.5, 0.7], "grid_ends": [0.0, 0.1, 0.3]}
QUICK_GRID = {"grid_peaks": [2e-3, 8e-3, 3.2e-2], "grid_warmups": [0.15, 0.5], "grid_ends": [0.0]}
SCHEDULE = {"points": 16, "start": 1e-3, "steps": 50, "step_size": 0.2}
QUICK_SCHEDULE = {"points": 8, "start": 1e-3, "steps": 5, "step_size": 0.5}


def main() -> None:
    """Print the descent and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five steps, six one-cycles, a shorter training")
    quick = parser.parse_args().quick
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        directory = begin_study(Path(home), catalog(Path(home), quick))
        with open_study(directory) as study:
            steps = study.catalog.schedule.steps
        found = [search._load(search.descend(directory, number)) for number in range(steps + 1)]
        print("target loss by metagradient step: " + " ".join(f"{d.phi:.3f}" for d in found), flush=True)
        print("control points: " + " ".join(f"{rate:.1e}" for rate in found[-1].z.tolist()), flush=True)
        for first in search.grid_units(directory):
            search.train_grid(directory, first)
        search.publish_schedules(directory)
        rows = read(home, directory.name, "schedule_scores", 0).to_pylist()
    emit("schedule", figures(rows, [d.phi for d in found], time.perf_counter() - began))


def catalog(directory: Path, quick: bool) -> Path:
    """The study's catalog with this benchmark's schedule and grid."""
    text = (STUDIES / "fashion.toml").read_text()
    text = text[: text.index("[schedule]")].replace('"../pools', f'"{STUDIES.parent}/pools')
    if quick:
        text = text.replace("steps = 128", "steps = 48").replace("examples = 1000", "examples = 500")
    options = (QUICK_SCHEDULE | QUICK_GRID) if quick else (SCHEDULE | GRID)
    lines = [f"{name} = {value}" for name, value in options.items()]
    path = directory / "schedule.toml"
    path.write_text("\n".join([text, "[schedule]", *lines, "[runtime]", "threads = 1", ""]))
    return path


def figures(rows: list[dict[str, float]], losses: list[float], seconds: float) -> dict[str, object]:
    """Means over the seeds, and the table."""
    own = {name: [row for row in rows if row["schedule"] == name] for name in (search.DESCENT, search.GRID)}
    print(f"{'schedule':<10}{'tried':>6}{'target loss':>13}{'test loss':>18}{'test accuracy':>15}")
    for name, group in own.items():
        test = [row["test_loss"] for row in group]
        print(
            f"{name:<10}{group[0]['tried']:>6}{fmean(row['target_loss'] for row in group):>13.4f}"
            f"{f'{fmean(test):.4f} ± {stdev(test):.4f}':>18}{fmean(row['test_accuracy'] for row in group):>15.4f}"
        )
    pairs = zip(own[search.DESCENT], own[search.GRID], strict=True)
    differences = [a["test_loss"] - b["test_loss"] for a, b in pairs]
    return {
        "mgd": fmean(row["test_loss"] for row in own[search.DESCENT]),
        "best_grid": fmean(row["test_loss"] for row in own[search.GRID]),
        "grid_size": own[search.GRID][0]["tried"],
        "noise": stdev(differences),
        "steps": own[search.DESCENT][0]["tried"],
        "mgd_accuracy": fmean(row["test_accuracy"] for row in own[search.DESCENT]),
        "best_grid_accuracy": fmean(row["test_accuracy"] for row in own[search.GRID]),
        "target_losses": losses,
        "rows": rows,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
