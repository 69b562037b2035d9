"""Curations that are done: found without a server, a recipe or a training, so that asking again answers at once."""

from __future__ import annotations

from pathlib import Path

from tasks.catalog.catalogs import BaseCatalog, load_catalog
from tasks.catalog.overrides import Overrides
from tasks.curation.begin import begin_run
from tasks.files.artefacts import is_done, publish_json
from tasks.pool.pools import plan_pool
from tasks.pool.record import check_budget, load_pool
from tasks.runs.run import Run
from tasks.sharding.pools import tars_of
from tasks.subset.sources import identity
from tasks.tables.published import files

RECORD = "finished.json"


def mark_finished(directory: Path, catalog: BaseCatalog) -> None:
    """Note that everything this catalog asks for is done."""
    run = Run.load(directory)
    publish_json(run.directory / RECORD, {"key": _key(run, catalog)})


def finished_run(path: Path, home: Path, overrides: Overrides | None = None) -> Path | None:
    """Directory of the run that has done all that the catalog in ``path``, with ``overrides``, asks for, and still has
    it; None: there is none, and the flow has to see what is left.

    Raises:
        RunMismatch: as `begin_run`.
    """
    catalog = load_catalog(path, overrides)
    if not list((home / "runs").glob(f"{catalog.name}-*/{RECORD}")):
        return None
    build = catalog.pool.build_options()
    tars = tars_of(catalog.pool.sources, home, build, catalog.pool.sharding)
    pool = load_pool(plan_pool(tars, home, build).directory) if tars else None
    if pool is None:
        return None
    check_budget(build, pool)
    run = begin_run(home, path, pool, overrides)
    results = [run.directory / "report.html", run.directory / "subset.npy"]
    tables = [found for table in ("rounds", "choices", "evaluations") for found in files(home, run.id, table).values()]
    there = all(one.exists() for one in (*results, *tables))
    return run.directory if there and tables and is_done(run.directory / RECORD, _key(run, catalog)) else None


def _key(run: Run, catalog: BaseCatalog) -> str:
    """Of all that the catalog says, also of what changes no round, and of the contents of tests and rivals."""
    rivals = {name: identity(expression, run.home) for name, expression in catalog.comparison.rivals.items()}
    said = catalog.model_dump(mode="json", exclude={"description", "runtime"})
    return run.key("finished", said, run.record.get("tests", {}), rivals)
