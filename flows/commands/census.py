"""`mgd census`: what is wrong with a pool, before anybody trains on it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import Make, add_catalog, chosen_catalog, flow_session

if TYPE_CHECKING:
    from tasks.catalog.catalogs import Catalog

OVER = 3
"""Exit status of a census that found more than the catalog allows; 1 is any failure to take it."""

TEXT = """take the census of a catalog's pool: what is missing, damaged, doubled or drifted

Reads every shard once, with its table, its stats and the pool's metadata where they are there, and writes tables and a
page with histograms. Stopped or killed, the same command goes on where it was; after some shards were fetched again, it
reads those only. Exits with 3 when more was found than the catalog allows (pool.max_rejects, pool.max_damaged_shards,
census.limits)."""


def add_census(make: Make) -> None:
    """Add the command's parser."""
    made = make("census", _run, TEXT)
    add_catalog(made)


def _taken(catalog: Catalog, home: Path) -> Path | None:
    """Directory of the census, if every unit of it was taken before: then no server is needed to join them."""
    from tasks.census.taking import finish_census, pending, plan_census
    from tasks.modality.pairs.target_check import target_pictures
    from tasks.sharding.pools import tars_of

    if not (home / "census").is_dir():
        return None
    build = catalog.pool.build_options()
    tars = tars_of(catalog.pool.sources, home, build, catalog.pool.sharding)
    if tars is None:
        return None
    plan = plan_census(tars, home, build, catalog.census, target_pictures(catalog, home))
    if any(pending(plan)):
        return None
    finish_census(plan)
    return plan.directory


def _run(options: argparse.Namespace) -> int:
    path, overrides = chosen_catalog(options)
    from tasks.catalog.catalogs import check_sources, load_pair_catalog
    from tasks.modality.pairs.target_check import check_targets

    catalog, home = load_pair_catalog(path, "mgd census", overrides), options.home.resolve()
    check_sources(catalog)
    check_targets(catalog, home)
    directory = _taken(catalog, home)
    if directory is None:
        with flow_session(home):
            from flows.census import run_census

            directory = run_census(options.catalog, home, overrides)
    from tasks.census.page import format_census
    from tasks.census.verdict import CensusRecord
    from tasks.files.artefacts import read_json, reading

    with reading(directory / "census.json"):
        record = CensusRecord(**read_json(directory / "census.json"))
    print(format_census(record))
    print(f"\npage    {directory / 'census.html'}\ntables  {directory}/*.parquet")
    if not record.within_budget:
        print("mgd: the pool is over its budget", file=sys.stderr)
    return 0 if record.within_budget else OVER
