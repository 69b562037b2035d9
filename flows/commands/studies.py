"""What the commands of studies have in common: a study's flow is run, and what it came to is shown."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from flows.commands import Make, flow_session, shipped
from tasks.homes.working_copies import shown


def add_study(
    make: Make,
    name: str,
    text: str,
    run: Callable[[argparse.Namespace, Path], Path],
    show: Callable[[Path, Path], str],
) -> argparse.ArgumentParser:
    """Add a command that takes a study. ``run``: its flow, in a home, imported when it is called; ``show``: prints the
    result, from home and directory, and says what to ask."""

    def command(options: argparse.Namespace) -> int:
        from tasks.catalog.files import find_study

        path = find_study(options.study)
        from tasks.catalog.study_options import load_study
        from tasks.studies.study_report import write_study_report

        load_study(path)  # mistakes are told before anything starts
        home = options.home.resolve()
        with flow_session(home):
            directory = run(options, home)
        query = show(home, directory)
        print(f"report  {write_study_report(directory)}")
        print(f'ask     mgd sql --home {shown(home)} --run {directory.name} "{query}"')
        return 0

    made = make(name, command, text)
    made.add_argument("study", help=f"a TOML file, or the name of a study that comes with mgd: {shipped('studies')}")
    return made
