"""The flow `curate`: pool, smoothness gate, rounds of metagradient descent, choice of a round, comparison, report.

Composition only. Each task is one unit of work with its own durable record, so Prefect says what ran and the records
say what need not run again: give the same command after any interruption, and the run ends with the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.pool_building import build_pool, device_of
from flows.runtime.artifacts import show
from flows.runtime.runners import run_flow
from flows.runtime.session import record_session
from flows.smoothness import gate
from tasks.catalog.catalogs import BaseCatalog, find_catalog, load_catalog
from tasks.curation import comparison, estimate, rounds, selection, subsets
from tasks.curation.begin import begin_run
from tasks.curation.finished import mark_finished
from tasks.files.progress import announce, begin
from tasks.report import reports
from tasks.runs.run import Run


@task(name="replay", task_run_name="round {round}: train and replay", cache_policy=NO_CACHE, persist_result=False)
def train_round(directory: Path, round: int, differentiate: bool) -> Path:
    """Train on the round's counts and traverse the window in reverse."""
    with device_of(directory):
        return rounds.train_round(directory, round, differentiate)


@task(name="probe-shard", task_run_name="round {round}: probe {shard}", cache_policy=NO_CACHE, persist_result=False)
def probe_shard(directory: Path, round: int, shard: str) -> Path:
    """Score the masked samples of one shard."""
    with device_of(directory):
        return rounds.probe_shard(directory, round, shard)


@task(name="publish-round", task_run_name="round {round}: publish", cache_policy=NO_CACHE, persist_result=False)
def finish_round(directory: Path, round: int, probes: list[Path]) -> None:
    """Publish the round's tables and the next round's counts."""
    rounds.finish_round(directory, round, probes)


@task(name="train-subset", task_run_name="compare {subset}, seed {seed}", cache_policy=NO_CACHE, persist_result=False)
def train_subset(directory: Path, subset: str, seed: int, chosen: int) -> Path:
    """Train one subset afresh and test it."""
    with device_of(directory):
        return comparison.train_subset(directory, subset, seed, chosen)


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def report(directory: Path) -> Path:
    """Write the report and link it in Prefect."""
    run = Run.load(directory)
    page = reports.write_report(run.home, run.id)
    show(page, "report", run.id, reports.result_table(run.home, run.id))
    return page


@flow(name="curate", flow_run_name="curate {catalog}", on_running=[record_session], log_prints=False)
def curate(catalog: str, home: str = "runs") -> str:
    """Curate the pool of a catalog (a file, or a name such as `fashion`); returns the run's directory."""
    path, base = find_catalog(catalog), Path(home).resolve()
    options = load_catalog(path)
    pool = build_pool(options, base)
    begin("look at what the run is made of")
    run = begin_run(base, path, pool)
    directory = run.directory
    estimate.prepare(directory)
    if options.descent.rounds:
        gate(directory, options)
    _descend(directory, options)
    chosen = selection.choose_round(directory)
    subsets.write_subset(directory, chosen)
    compared = [
        train_subset.submit(directory, subset, seed, chosen)
        for seed in dict.fromkeys(options.comparison.seeds)
        for subset in options.comparison.compared
    ]
    done: list[Path] = []
    for future in compared:
        done.append(future.result())
        comparison.publish_evaluations(directory, done, chosen)  # to be asked while the others train
    report(directory)
    mark_finished(directory, options)
    return str(directory)


def run_curate(catalog: str, home: Path) -> Path:
    """Run the flow in this process with the task runner that the catalog asks for."""
    runtime = load_catalog(find_catalog(catalog)).runtime
    return Path(run_flow(curate, runtime, catalog, str(home)))


def _descend(directory: Path, options: BaseCatalog) -> None:
    """Rounds 0 .. R-1 differentiate and step the counts; round R only trains, to evaluate the last counts. With R = 0
    there is no round, unless the comparison ranks by its model."""
    last = options.descent.rounds
    if not last and not comparison.needs_round_0(options):
        return  # comparison only
    shards = rounds.shard_names(directory) if rounds.probe_steps_of(options.descent) else []
    for number in range(last + 1):
        train_round(directory, number, differentiate=number < last)
        probes = []
        if number < last:
            futures = [probe_shard.submit(directory, number, shard) for shard in shards]
            for done, future in enumerate(futures, start=1):
                probes.append(future.result())
                announce(f"round {number}: probe", done, len(shards))
        finish_round(directory, number, probes)
