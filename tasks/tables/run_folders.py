"""Runs of a home by their folders and tables: which there are, which is the latest, which round was chosen."""

from __future__ import annotations

from pathlib import Path

from mgd_core.errors import UserError
from tasks.homes.working_copies import shown
from tasks.tables.published import age, files

ONLY_BEGUN = "was begun and has published nothing yet; go on with it by `mgd curate`, or name another with --run"


class NoRun(UserError, LookupError):
    """There is no such run, or it has not come far enough."""


def run_directories(home: Path) -> list[Path]:
    """Runs of a home, the latest first (`published.age`)."""
    found = (path.parent for path in (Path(home) / "runs").glob("*/run.json"))
    return sorted(found, key=lambda path: age(home, path.name), reverse=True)


def latest_run(home: Path) -> str:
    """Id of the latest run.

    Raises:
        NoRun: the home has none.
    """
    directories = run_directories(home)
    if not directories:
        raise NoRun(f"no runs in {shown(home)}; begin one with `mgd curate fashion`, or name another --home")
    return directories[0].name


def run_directory(home: Path, run: str) -> Path:
    """Directory of the run of this id.

    Raises:
        NoRun: with the ids there are.
    """
    directory = Path(home) / "runs" / run
    if not (directory / "run.json").exists():
        known = ", ".join(path.name for path in run_directories(home)) or "none"
        raise NoRun(f"no run '{run}' in {shown(home)}; there are: {known}")
    return directory


def chosen_round(home: str | Path, run: str) -> int | None:
    """The chosen round, or None while the rounds are under way."""
    chosen = files(Path(home), run, "choices")
    return max(chosen) if chosen else None


def score_table(home: str | Path, name: str) -> Path:
    """Where a home keeps the scores of a name."""
    return Path(home) / "scores" / f"{name}.parquet"
