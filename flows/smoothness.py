"""The flow `smoothness`: how smooth a catalog's recipe is, an ablation over its menu, and the gate of `curate`.

Composition only, as in `flows.curate`: the units say themselves what is done, so the same command goes on after any
interruption, and a curation that follows finds its gate measured and its round 0 differentiated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.pool_building import build_pool, prepare_pool, run_device
from flows.runtime.operating import stage, unit
from flows.runtime.runners import run_flow
from tasks.catalog.catalogs import BaseCatalog, find_catalog, load_catalog
from tasks.catalog.smoothness_options import SmoothnessOptions
from tasks.curation.begin import begin_run
from tasks.runs.run import Run
from tasks.smoothness import lds as smoothness_lds
from tasks.smoothness import measuring, metagradient_check
from tasks.smoothness.menu import Variant
from tasks.smoothness.table import check_bar


@unit("smooth-base", "{variant.name}: at z")
def train_base(directory: Path, variant: Variant) -> Path:
    """Train a recipe on the pool as it is."""
    with run_device(directory):
        return measuring.train_base(directory, variant)


@unit("smooth-direction", "{variant.name}: v{number}")
def measure_direction(directory: Path, variant: Variant, number: int, h: float) -> Path:
    """Train a recipe at two points along a direction."""
    with run_device(directory):
        return measuring.measure_direction(directory, variant, number, h)


@unit("smooth-lds", "{variant.name}: LDS")
def measure_lds(directory: Path, variant: Variant, options: SmoothnessOptions) -> None:
    """Hold a recipe's metagradient against trainings without random subsets."""
    with run_device(directory):
        smoothness_lds.measure_lds(directory, variant, options)


@unit("smooth-metagradient")
def check_metagradient(directory: Path, options: SmoothnessOptions) -> Path:
    """Take round 0's metagradient and hold it against the directions."""
    with run_device(directory):
        return metagradient_check.check_metagradient(directory, options)


@stage("smoothness")
def smoothness(
    catalog: str,
    home: str = "runs",
    sweep: bool = False,
    overrides: dict[str, Any] | None = None,
    **measure: float,
) -> str:
    """Measure a catalog's recipe, and with ``sweep`` its menu; ``measure``: `directions` and `h` instead of its own.

    Returns the run's directory.
    """
    path, base = find_catalog(catalog), Path(home).resolve()
    options = load_catalog(path, overrides)
    directory = begin_run(base, path, build_pool(options, base), overrides).directory
    prepare_pool(directory)
    how = SmoothnessOptions(**(options.smoothness.model_dump() | measure))
    _measure(directory, how, measuring.prepare(directory, how, sweep))
    check_metagradient.submit(directory, how).result()
    return str(directory)


def run_smoothness(catalog: str, home: Path, sweep: bool, overrides: dict[str, Any], **measure: float) -> Path:
    """Run the flow in this process."""
    return Path(run_flow(smoothness, catalog, str(home), sweep, overrides, **measure))


def gate(directory: Path, options: BaseCatalog) -> None:
    """Measure a curation's recipe where its catalog sets a bar.

    Raises:
        NotSmooth: the recipe is below the bar.
    """
    if options.smoothness.bar is None:
        return
    found = measuring.prepare(directory, options.smoothness, sweep=False, curated=True)
    _measure(directory, options.smoothness, found)
    run = Run.load(directory)
    check_bar(run.home, run.id, options)


def _measure(directory: Path, options: SmoothnessOptions, found: list[Variant]) -> None:
    """Each recipe in turn, its directions side by side where there are workers."""
    for variant in found:
        train_base.submit(directory, variant).result()
        numbers = range(options.directions)
        futures = [measure_direction.submit(directory, variant, number, options.h) for number in numbers]
        for future in futures:
            future.result()
        if options.lds_subsets:
            measure_lds.submit(directory, variant, options).result()
        measuring.forget_states(directory, variant)
    measuring.publish_smoothness(directory, options)
