"""`mgd smoothness`: is a recipe smooth enough for its metagradients to be of use, and what would make it smoother."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows.commands import Make, add_catalog, chosen_catalog, flow_session, positive, whole_from
from tasks.homes.working_copies import shown

BELOW = 3
"""Exit status where the recipe is below the catalog's bar; 1 is any failure to measure it."""

TEXT = """measure how smooth a catalog's recipe is, before spending rounds on it

Trains at weights 1, 1 + h v and 1 + 2 h v along random directions v and prints metasmoothness S (Definition 2 of
arXiv 2503.13751; 1: smooth, near 0: metagradients say nothing), the second difference of the target loss (Definition
1), the movement of the parameters, and one true metagradient with its size. --sweep does so for each value in the
catalog's [smoothness.menu], one knob at a time, beside held-out accuracy; --lds N also holds each recipe's metagradient
against N trainings without random samples (LDS: Spearman's rank correlation of predicted and true changes). Stopped or
killed, the same command goes on where it was; `mgd curate` takes over what was measured. Exits with 3 when S is below
the catalog's smoothness.bar."""

MENU = """the catalog has no [smoothness.menu], so there is nothing to sweep. Name other values for its knobs, say:

[smoothness.menu]
eps_root = [0.0, 1e-6]
batch = [128, 512]
learning_rate = [5e-4, 2e-3]"""


def add_smoothness(make: Make) -> None:
    """Add the command's parser."""
    made = make("smoothness", _run, TEXT)
    add_catalog(made)
    text = "random directions, at least 2 (default: the catalog's smoothness.directions)"
    few = "one direction says nothing of the spread"
    made.add_argument("--directions", type=whole_from(2, few), help=text)
    made.add_argument("--h", type=positive, help="step along a direction (default: the catalog's smoothness.h)")
    text = "also train each recipe without N random subsets, 3 or more (default: smoothness.lds_subsets)"
    few = "a rank correlation needs 3 subsets or more, say 20"
    made.add_argument("--lds", type=whole_from(3, few), metavar="N", dest="lds_subsets", help=text)
    made.add_argument("--sweep", action="store_true", help="also measure each recipe of the catalog's smoothness.menu")


def _run(options: argparse.Namespace) -> int:
    path, overrides = chosen_catalog(options)
    from tasks.catalog.catalogs import CatalogError, load_catalog
    from tasks.curation.beforehand import check_beforehand

    catalog, home = load_catalog(path, overrides), options.home.resolve()
    measure = {
        name: value for name in ("directions", "h", "lds_subsets") if (value := getattr(options, name)) is not None
    }
    if options.sweep and not any(catalog.smoothness.menu.model_dump().values()):
        raise CatalogError(MENU)
    check_beforehand(catalog, home)
    with flow_session(home):
        from flows.smoothness import run_smoothness

        directory = run_smoothness(options.catalog, home, options.sweep, overrides, **measure)
    return _show(directory, catalog.smoothness.bar)


def _show(directory: Path, bar: float | None) -> int:
    from tasks.smoothness.metagradient_check import format_check, load_check
    from tasks.smoothness.table import format_summaries, own_score, summaries

    home, run = directory.parents[1], directory.name
    print(format_summaries(summaries(home, run)))
    print(f"\n{format_check(load_check(directory))}")
    print(f'ask     mgd sql --home {shown(home)} "select * from smoothness_summary"')
    score = own_score(home, run)
    if bar is None or (score is not None and score >= bar):
        return 0
    print(f"mgd: the recipe is below the catalog's bar of {bar:g}", file=sys.stderr)
    return BELOW
