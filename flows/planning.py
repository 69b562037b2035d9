"""The flow `plan`: a catalog's pool, and what its reverse sweeps will cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.pool_building import build_pool, prepare_pool
from flows.runtime.operating import stage
from flows.runtime.runners import run_flow
from tasks.catalog.catalogs import find_catalog, load_catalog
from tasks.curation.begin import begin_run
from tasks.curation.estimate import describe_plans


@stage("plan")
def plan(catalog: str, home: str = "runs", overrides: dict[str, Any] | None = None) -> str:
    """Build the pool and measure the recipe; returns a table for a terminal."""
    path, base = find_catalog(catalog), Path(home).resolve()
    pool = build_pool(load_catalog(path, overrides), base)
    directory = begin_run(base, path, pool, overrides).directory
    prepare_pool(directory)
    return describe_plans(directory)


def run_plan(catalog: str, home: Path, overrides: dict[str, Any]) -> str:
    """Run the flow in this process."""
    return run_flow(plan, catalog, str(home), overrides)
