"""`mgd curate` and `mgd serve`: a catalog curated now, or whenever a schedule says so."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import Make, add_catalog, chosen_catalog, flow_session
from tasks.homes.working_copies import shown

if TYPE_CHECKING:
    from prefect.runner import Runner

    from tasks.catalog.base import BaseCatalog

CURATE = """curate the pool of a catalog

Builds the pool, runs the rounds, chooses one by the held-out target, compares its subset with rivals at equal
samples seen, and writes a report. Stopped or killed, the same command goes on where it was."""

SERVE = """curate a catalog on a schedule, until stopped (on your Prefect, see PREFECT_API_URL)

Each time it is what `mgd curate` does. Ctrl-C or SIGTERM pauses the schedule and stops what runs, which the next time
goes on from where it was; the same command takes the schedule up again."""

GRACE = 10.0
"""Seconds that a run in hand has to end, once its schedule is stopped."""


def add_curate(make: Make) -> None:
    """Add the parser of `mgd curate`."""
    add_catalog(make("curate", _curate, CURATE))


def add_serve(make: Make) -> None:
    """Add the parser of `mgd serve`."""
    made = make("serve", _serve, SERVE)
    add_catalog(made)
    made.add_argument("--cron", required=True, help='five fields, for instance "0 3 * * *": every night at three (UTC)')


def _checked(path: Path, overrides: dict[str, Any], home: Path) -> BaseCatalog:
    """The catalog with what is laid over it; mistakes are told before anything starts."""
    from tasks.catalog.catalogs import load_catalog
    from tasks.curation.beforehand import check_beforehand

    catalog = load_catalog(path, overrides)
    check_beforehand(catalog, home)
    return catalog


def _finished(path: Path, overrides: dict[str, Any], home: Path) -> Path | None:
    """The directory of the run that is done, if there is one."""
    from tasks.curation.finished import finished_run

    _checked(path, overrides, home)
    return finished_run(path, home, overrides)


def _curate(options: argparse.Namespace) -> int:
    home = options.home.resolve()
    path, overrides = chosen_catalog(options)
    from tasks.curation.glance import glanced_run
    from tasks.report.reports import summary

    directory = glanced_run(path, home, overrides) or _finished(path, overrides, home)
    if directory is None:
        with flow_session(home):
            from flows.curate import run_curate

            directory = run_curate(options.catalog, home, overrides)
    print(summary(home, directory.name))
    print(f"\nreport  {directory / 'report.html'}\nsubset  {directory / 'subset.npy'}")
    print(f"ask     mgd sql --home {shown(options.home)}")
    return 0


async def _serve_until_stopped(runner: Runner) -> None:
    """Run what the schedule says until Ctrl-C or SIGTERM, which pause it.

    Prefect's own handler of SIGTERM leaves the event loop before the schedule is paused, and waits for runs in hand.
    """
    serving, loop = asyncio.ensure_future(runner.start()), asyncio.get_running_loop()

    def end(*_: object) -> None:
        for run in multiprocessing.active_children():
            run.terminate()
            loop.call_soon_threadsafe(loop.call_later, GRACE, run.kill)
        loop.call_soon_threadsafe(serving.cancel)

    runner.handle_sigterm = end  # type: ignore[method-assign]
    with suppress(asyncio.CancelledError):
        await serving


def _serve(options: argparse.Namespace) -> int:
    from flows.runtime.session import check_schedule, prefect_session

    home = options.home.resolve()
    path, overrides = chosen_catalog(options)
    check_schedule(home, options.cron)
    catalog = _checked(path, overrides, home)
    with prefect_session(home):
        from prefect.deployments.runner import EntrypointType
        from prefect.runner import Runner

        from flows.curate import curate

        runner = Runner(name=catalog.name, limit=1)
        runner.add_flow(
            curate,
            name=catalog.name,
            cron=options.cron,
            parameters={"catalog": str(path), "home": str(home), "overrides": overrides},
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        print(f"serving curate/{catalog.name}, {options.cron}; Ctrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            asyncio.run(_serve_until_stopped(runner))
    return 0
