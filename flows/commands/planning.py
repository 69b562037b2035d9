"""`mgd plan`: what the reverse sweeps of a catalog will keep, recompute and take, before anything is trained."""

from __future__ import annotations

import argparse

from flows.commands import Make, add_catalog, chosen_catalog, flow_session

TEXT = """say what a catalog's reverse sweeps will keep, recompute and take

Builds the pool if need be, runs a few steps of the recipe to measure them, and prints the plan that the catalog names
or that `descent.plan = "auto"` chooses within its budgets: steps recomputed, states and bytes on each tier, seconds of
a round. Below it, what the same round would take with every state kept, and with fewer and fewer."""


def add_plan(make: Make) -> None:
    """Add the command's parser."""
    made = make("plan", _run, TEXT)
    add_catalog(made)


def _run(options: argparse.Namespace) -> int:
    home = options.home.resolve()
    path, overrides = chosen_catalog(options)
    from tasks.catalog.catalogs import load_catalog
    from tasks.curation.beforehand import check_beforehand

    check_beforehand(load_catalog(path, overrides), home)
    with flow_session(home):
        from flows.planning import run_plan

        print(run_plan(options.catalog, home, overrides))
    return 0
