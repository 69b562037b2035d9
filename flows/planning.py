"""The flow `plan`: a catalog's pool, and what its reverse sweeps will cost."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.pool_building import build_pool
from flows.runtime.runners import run_flow
from flows.runtime.session import record_session
from tasks.catalog.catalogs import find_catalog, load_catalog
from tasks.curation.begin import begin_run
from tasks.curation.estimate import describe_plans


@flow(name="plan", flow_run_name="plan {catalog}", on_running=[record_session], log_prints=False)
def plan(catalog: str, home: str = "runs") -> str:
    """Build the pool and measure the recipe; returns a table for a terminal."""
    path, base = find_catalog(catalog), Path(home).resolve()
    return describe_plans(begin_run(base, path, build_pool(load_catalog(path), base)).directory)


def run_plan(catalog: str, home: Path) -> str:
    """Run the flow in this process with the task runner that the catalog asks for."""
    runtime = load_catalog(find_catalog(catalog)).runtime
    return run_flow(plan, runtime, catalog, str(home))
