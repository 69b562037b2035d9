"""`mgd plan`: what the reverse sweeps of a catalog will keep, recompute and take, before anything is trained."""

from __future__ import annotations

import argparse

from flows.commands import Make, flow_session, shipped

TEXT = """say what a catalog's reverse sweeps will keep, recompute and take

Builds the pool if need be, runs a few steps of the recipe to measure them, and prints the plan that the catalog names
or that `descent.plan = "auto"` chooses within its budgets: steps recomputed, states and bytes on each tier, seconds of
a round. Below it, what the same round would take with every state kept, and with fewer and fewer."""


def add_plan(make: Make) -> None:
    """Add the command's parser."""
    made = make("plan", _run, TEXT)
    made.add_argument("catalog", help=f"a TOML file, or the name of a catalog that comes with mgd: {shipped()}")


def _run(options: argparse.Namespace) -> int:
    from tasks.catalog.catalogs import find_catalog, load_catalog
    from tasks.curation.beforehand import check_beforehand

    home = options.home.resolve()
    check_beforehand(load_catalog(find_catalog(options.catalog)), home)
    with flow_session(home):
        from flows.planning import run_plan

        print(run_plan(options.catalog, home))
    return 0
