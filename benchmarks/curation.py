"""How much of the gap between the whole pool and a perfect filter does metagradient descent close, and do rivals more?

`python -m benchmarks.curation [--pool NAME]` runs the catalogs fashion, emoji and icons from nothing, as `mgd curate`
does, beside every filter that there is (and, where groups of samples are known, every filter by groups), and prints for
each test all subsets, the best first (mean and spread over five seeds, equal samples seen), the gap closed

    (accuracy of mgd - accuracy of everything) / (accuracy of oracle - accuracy of everything),

and by how much mgd is ahead of each on the same pictures and seeds; both with 95 % intervals by the bootstrap over
seeds and pictures (`tasks.evaluation.paired_bootstrap`). The best rival is the best on the test itself, which favours
it. Then precision and recall of the kept samples against the truth by round. `--quick` runs shortened trainings of few
subsets on the same pools, to see that it works; its figures mean little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._envelope import emit
from tasks.catalog.catalogs import load_catalog
from tasks.evaluation.paired_bootstrap import Floats, Interval, Right, interval, resampled
from tasks.evaluation.paired_differences import by_task
from tasks.files.package_data import CATALOGS
from tasks.report.results import NO_RIVALS, called
from tasks.tables.published import read
from tasks.tables.run_folders import chosen_round

POOLS = ("fashion", "emoji", "icons")
SEEDS = (101, 102, 103, 104, 105)
FILTERS = (
    *("loss_filter", "own_clip_filter", "negclip_filter", "norm_sim_filter", "domain_match_filter", "color_filter"),
    *("gradient_filter", "influence_filter", "negclip_norm_sim_filter"),
)
GROUPS = {"icons": ("source",)}
"""Columns by which filters are averaged where the catalog's own descent has none."""
TASKS = {"fashion": "fashion", "subgroup": "{}", "concept": "{}_concept"}
"""What figures of a test are called, by task; the pool's name in braces."""
QUICK: dict[str, Any] = {
    **{"descent.rounds": 1, "descent.window_start": 8, "descent.probe_steps": [8], "comparison.seeds": [101]},
    **{"learner.steps": 12, "learner.warmup": 3},
}


def main() -> None:
    """Run the pools and print tables and figures."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="mgd-curation-") as scratch:
        home = options.home or Path(scratch)
        figures = run(home, options.quick, POOLS if options.pool == "all" else (options.pool,))
    emit("curation", figures)


def run(home: Path, quick: bool, pools: tuple[str, ...] = POOLS) -> dict[str, Any]:
    """Curate each pool in ``home`` (finished parts are not run again) and collect the figures."""
    from flows.runtime.server import stop_server
    from flows.runtime.session import prefect_session

    home = home.resolve()
    figures: dict[str, Any] = {"quick": quick}
    try:
        with prefect_session(home):
            from flows.console import shown_progress
            from flows.curate import run_curate

            for name in pools:
                began, catalog = time.monotonic(), CATALOGS / f"{name}.toml"
                with shown_progress():
                    directory = run_curate(str(catalog), home, overrides(name, quick))
                seconds = time.monotonic() - began
                print(f"\n== {name} ({seconds:.0f} s)")
                figures |= {**_figures(name, home, directory.name), f"seconds_{name}": round(seconds)}
    finally:
        stop_server(home)
    return figures


def overrides(name: str, quick: bool) -> dict[str, Any]:
    """What the benchmark says otherwise than a pool's catalog: seeds, and every rival, by groups as well."""
    groups = load_catalog(CATALOGS / f"{name}.toml").descent.groups or GROUPS.get(name, ())
    filters = FILTERS[:3] if quick else FILTERS
    pooled = [f"{one}@{column}" for column in groups for one in filters]
    subsets = ["everything", "random", *filters, *pooled, "mgd", "oracle"]
    return {"comparison.seeds": list(SEEDS), "comparison.subsets": subsets, **(QUICK if quick else {})}


class Standing(NamedTuple):
    """A subset's accuracies by seed (seeds,), the gap it closes, and by how much mgd is ahead of it."""

    subset: str
    by_seed: Floats
    gap: Interval
    behind_mgd: Interval

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return float(self.by_seed.mean())


def standings(right: Mapping[str, Right]) -> list[Standing]:
    """All subsets of a test, the best first; ``right``: answers (seeds, n) of each."""
    means = resampled(right)
    room = means["oracle"] - means["everything"]
    room = np.where(room > 0, room, np.nan)  # nothing to close
    found = [
        Standing(
            subset,
            one.mean(1),
            interval((means[subset] - means["everything"]) / room),
            interval(means["mgd"] - means[subset]),
        )
        for subset, one in right.items()
    ]
    return sorted(found, key=lambda one: (-one.accuracy, one.subset))


def _figures(pool: str, home: Path, run_id: str) -> dict[str, Any]:
    chosen = chosen_round(home, run_id)
    assert chosen is not None
    rows = read(home, run_id, "evaluations", chosen).to_pylist()
    sizes = {row["subset"]: row["distinct_samples"] for row in rows}
    figures: dict[str, Any] = {}
    for (task, _), right in by_task(read(home, run_id, "answers", chosen).to_pylist()).items():
        found, key = standings(right), TASKS[task].format(pool)
        _print_table(task, found, sizes)
        by_subset = {one.subset: one for one in found}
        best = next(one for one in found if one.subset not in NO_RIVALS)
        print(f"\n{called('mgd')} less the best rival, {called(best.subset)}: {_points(best.behind_mgd)} points")
        gap = by_subset["mgd"].gap
        figures |= {
            f"gap_closed_{key}": round(gap.value, 4),
            f"gap_closed_{key}_interval": [round(gap.low, 4), round(gap.high, 4)],
            f"lead_{key}": {"rival": best.subset, "points": [round(100 * x, 2) for x in best.behind_mgd]},
            f"accuracy_{key}": {one.subset: round(one.accuracy, 4) for one in found},
        }
    return figures | {f"precision_recall_{pool}": _print_rounds(home, run_id)}


def _print_table(task: str, found: list[Standing], sizes: Mapping[str, int]) -> None:
    width = max(len(called(one.subset)) for one in found)
    n = len(found[0].by_seed)
    print(f"\n{task}, {n} seed{'s' if n > 1 else ''}")
    print(f"{'subset':<{width}}  distinct  accuracy     gap closed        mgd ahead by, points")
    for one in found:
        spread = f" ± {100 * one.by_seed.std(ddof=1):.1f}" if n > 1 else ""
        gap = "-" if np.isnan(one.gap.value) else f"{one.gap.value:.0%} [{one.gap.low:.0%}, {one.gap.high:.0%}]"
        ahead = "" if one.subset == "mgd" else _points(one.behind_mgd)
        accuracy = f"{100 * one.accuracy:.1f}{spread}"
        print(f"{called(one.subset):<{width}}  {sizes[one.subset]:>8,}  {accuracy:<11}  {gap:<16}  {ahead}")


def _points(of: Interval) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * x for x in of))


def _print_rounds(home: Path, run_id: str) -> list[tuple[float, float]]:
    from tasks.tables.queries import connect

    with connect(home, run_id) as connection:
        rounds = connection.sql(
            "select round, kept, precision, weighted_precision, recall, auc, target_accuracy, heldout_accuracy "
            "from truth_agreement join rounds using (run, round) order by round"
        ).fetchall()
    print("\nround    kept  precision weighted   recall      auc   target held-out")
    for number, kept, *shares in rounds:
        figures = (f"{'-' if share is None else f'{share:.3f}':>8}" for share in shares)
        print(f"{number:>5} {kept:>7}  {' '.join(figures)}")
    return [(round(row[2], 4), round(row[4], 4)) for row in rounds]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shortened trainings of few subsets")
    parser.add_argument("--home", type=Path, help="keep runs here, go on with those begun (default: a temporary place)")
    parser.add_argument("--pool", choices=(*POOLS, "all"), default="all", help="one pool only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
