"""`mgd schedule`: which learning rates would serve a recipe better."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

from flows.commands import Make
from flows.commands.studies import add_study

SCHEDULE = """learning-rate schedule of a study, found by metagradient steps from a flat one

z is the rate of every training step, or of the control points that the study asks for; each step trains, differentiates
the target loss by z, and moves. A grid of one-cycles is trained beside it, and the best of both again with other seeds.
Draws the schedules. Stopped or killed, the same command goes on where it was."""


def add_schedule(make: Make) -> None:
    """Add the command's parser."""
    add_study(make, "schedule", SCHEDULE, _run, _show)


def _run(options: argparse.Namespace, home: Path) -> Path:
    from flows.schedule import run_schedule

    return run_schedule(options.study, home)


def _show(home: Path, directory: Path) -> str:
    from tasks.studies.schedule_plot import draw_schedules
    from tasks.tables.published import read

    rows = read(home, directory.name, "schedule_scores", 0).to_pylist()
    print(f"{'schedule':<10}{'of':>6}{'target loss':>16}{'test loss':>16}{'test accuracy':>18}   over seeds")
    for name in dict.fromkeys(row["schedule"] for row in rows):
        own = [row for row in rows if row["schedule"] == name]
        cells = []
        for column, width in (("target_loss", 16), ("test_loss", 16), ("test_accuracy", 18)):
            values = [row[column] for row in own]
            cells.append(f"{f'{fmean(values):.4f} ± {stdev(values):.4f}':>{width}}")
        print(f"{name:<10}{own[0]['tried']:>6}{''.join(cells)}   {len(own)}")
    print(f"picture {draw_schedules(home, directory.name, directory / 'schedule.svg')}")
    return "select * from schedule_scores"
