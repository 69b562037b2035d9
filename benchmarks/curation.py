"""How much of the gap between the whole pool and a perfect filter does metagradient descent close?

`python -m benchmarks.curation` runs the catalogs fashion and emoji from nothing, as `mgd curate` does, and prints for
each the test results of all subsets (mean and spread over three seeds, equal samples seen), the gap closed

    (accuracy of mgd - accuracy of everything) / (accuracy of oracle - accuracy of everything),

and precision and recall of the kept samples against the truth by round. `--quick` runs shortened trainings on the same
pools, to see that it works; its figures mean little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._envelope import emit
from tasks.files.package_data import CATALOGS

NAMES = ("fashion", "emoji")
QUICK = {"rounds": 1, "steps": 12, "warmup": 3, "window_start": 8, "probe_steps": [8], "seeds": [101]}


def main() -> None:
    """Run both catalogs and print tables and figures."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="mgd-curation-") as scratch:
        home = options.home or Path(scratch)
        figures = run(home, options.quick, options.only)
    emit("curation", figures)


def run(home: Path, quick: bool, only: str | None = None) -> dict[str, Any]:
    """Curate each catalog in ``home`` (finished parts are not run again) and collect the figures."""
    from flows.runtime.server import stop_server
    from flows.runtime.session import prefect_session

    home = home.resolve()
    figures: dict[str, Any] = {"quick": quick}
    try:
        with prefect_session(home):
            from flows.console import shown_progress
            from flows.curate import run_curate

            for name in NAMES if only is None else (only,):
                began = time.monotonic()
                with shown_progress():
                    directory = run_curate(str(_catalog(name, home, quick)), home)
                figures |= _figures(name, home, directory.name, time.monotonic() - began)
    finally:
        stop_server(home)
    return figures


def _catalog(name: str, home: Path, quick: bool) -> Path:
    """The catalog as it is, or a shortened copy of it beside the pools it refers to."""
    path = CATALOGS / f"{name}.toml"
    if not quick:
        return path
    lines = []
    for line in path.read_text().splitlines():
        key = line.partition("=")[0].strip()
        if key in QUICK:
            line = f"{key} = {QUICK[key]}"
        lines.append(line.replace('"pools/', f'"{CATALOGS}/pools/').replace('"models/', f'"{CATALOGS}/models/'))
    copy = home / f"{name}.toml"
    copy.write_text("\n".join(lines))
    return copy


def _figures(name: str, home: Path, run_id: str, seconds: float) -> dict[str, Any]:
    from tasks.report.reports import format_result_table, result_table
    from tasks.tables.queries import connect

    print(f"\n== {name} ({seconds:.0f} s)\n{format_result_table(result_table(home, run_id))}\n")
    with connect(home, run_id) as connection:
        means = dict(
            connection.sql(
                "select subset, avg(value) from evaluations where metric = 'acc1' and task = "
                f"'{'fashion' if name == 'fashion' else 'subgroup'}' group by subset"
            ).fetchall()
        )
        rounds = connection.sql(
            "select round, kept, precision, weighted_precision, recall, auc, target_accuracy, heldout_accuracy "
            "from truth_agreement join rounds using (run, round) order by round"
        ).fetchall()
    print("round    kept  precision weighted   recall      auc   target held-out")
    for number, kept, *shares in rounds:
        figures = (f"{'-' if share is None else f'{share:.3f}':>8}" for share in shares)
        print(f"{number:>5} {kept:>7}  {' '.join(figures)}")
    gap = (means["mgd"] - means["everything"]) / (means["oracle"] - means["everything"])
    return {
        f"gap_closed_{name}": gap,
        f"accuracy_{name}": {subset: round(value, 4) for subset, value in means.items()},
        f"precision_recall_{name}": [(round(row[2], 4), round(row[4], 4)) for row in rounds],
        f"seconds_{name}": round(seconds),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shortened trainings, under 45 s")
    parser.add_argument("--home", type=Path, help="keep runs here, go on with those begun (default: a temporary place)")
    parser.add_argument("--only", choices=NAMES, help="one catalog only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
