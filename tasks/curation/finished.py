"""Curations that are done: found without a server, a recipe or a training."""

from __future__ import annotations

from pathlib import Path

from tasks.catalog.catalogs import BaseCatalog, load_catalog
from tasks.catalog.overrides import Overrides
from tasks.curation.begin import begin_run
from tasks.curation.glance import RECORD, built_pool, glance, rivals, stands
from tasks.files.artefacts import is_done, publish_json
from tasks.runs.run import Run


def mark_finished(directory: Path, catalog: BaseCatalog) -> None:
    """Note that everything this catalog asks for is done."""
    run = Run.load(directory)
    publish_json(run.directory / RECORD, {"key": _key(run, catalog), "glance": glance(run.home, catalog, run.pool)})


def finished_run(path: Path, home: Path, overrides: Overrides | None = None) -> Path | None:
    """Directory of the run that has done all that the catalog in ``path``, with ``overrides``, asks for, and still has
    it; None: there is none, and the flow has to see what is left.

    Raises:
        RunMismatch: as `begin_run`.
    """
    catalog = load_catalog(path, overrides)
    if not list((home / "runs").glob(f"{catalog.name}-*/{RECORD}")):
        return None
    pool = built_pool(catalog, home)
    if pool is None:
        return None
    run = begin_run(home, path, pool, overrides)
    if not (is_done(run.directory / RECORD, _key(run, catalog)) and stands(run)):
        return None
    mark_finished(run.directory, catalog)  # it may look otherwise at a glance
    return run.directory


def _key(run: Run, catalog: BaseCatalog) -> str:
    """Of all that the catalog says, also of what changes no round, and of the contents of tests and rivals."""
    said = catalog.model_dump(mode="json", exclude={"description", "runtime"})
    return run.key("finished", said, run.record.get("tests", {}), rivals(run.home, catalog))
