"""The flow `curate`: pool, smoothness gate, rounds of metagradient descent, choice of a round, comparison, report.

Composition only. Each task is one unit of work with its own durable record, so Prefect says what ran and the records
say what need not run again: give the same command after any interruption, and the run ends with the same bytes. Two
flows of one run never work at once: the second waits until the first has ended, whatever ended it, and then does what
is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import tags
from prefect.futures import PrefectFuture

from flows.pool_building import build_pool, only_flow, prepare_pool, rank_devices, run_device
from flows.runtime.artifacts import round_rows, show, show_table
from flows.runtime.operating import stage, tagged, unit
from flows.runtime.parameters import CatalogName, laid_over
from flows.runtime.runners import run_flow
from flows.smoothness import gate
from tasks.catalog.catalogs import BaseCatalog, find_catalog, load_catalog
from tasks.curation import blends, comparison, estimate, ranking, selection, subsets
from tasks.curation import rounds as descent
from tasks.curation.begin import begin_run
from tasks.curation.finished import mark_finished
from tasks.curation.multitask import wanted
from tasks.files.progress import announce, begin
from tasks.report import reports
from tasks.runs.run import Run


@unit("replay", "round {round}: train and replay")
def train_round(directory: Path, round: int, differentiate: bool, replicate: int = 0) -> Path:
    """Train on the round's counts and traverse the window in reverse."""
    with rank_devices(directory) as devices:
        return descent.train_round(directory, round, differentiate, replicate, devices)


@unit("probe-shard", "round {round}: probe {shard}")
def probe_shard(directory: Path, round: int, shard: str) -> Path:
    """Score the masked samples of one shard."""
    with run_device(directory):
        return descent.probe_shard(directory, round, shard)


@unit("look-at-pool", "look at the pool by round 0's model")
def look_at_pool(directory: Path) -> None:
    """Find out what is known of the pool's samples, for a learned step."""
    with run_device(directory):
        descent.look_at_pool(directory)


@unit("publish-round", "round {round}: publish")
def finish_round(directory: Path, round: int, probes: list[Path]) -> None:
    """Publish the round's tables and the next round's counts, and show what the rounds did so far."""
    descent.finish_round(directory, round, probes)
    run = Run.load(directory)
    show_table("rounds", f"rounds of {run.id}", round_rows(run.home, run.id))


@unit("blend", "round {round}: blend")
def publish_blend(directory: Path, round: int) -> None:
    """Choose what the run's g and filters choose together."""
    with run_device(directory):
        blends.publish_blend(directory, round)


@unit("train-finalist", "choose: round {round}, training {number}")
def train_finalist(directory: Path, round: int, number: int) -> Path:
    """Train a round that could be the result once more, for the held-out part to judge."""
    with run_device(directory):
        return selection.train_finalist(directory, round, number)


@unit("sweep-tasks", "round {round}: what each task wants")
def sweep_tasks(directory: Path, round: int, replicate: int = 0) -> Path:
    """Traverse a round's window in reverse for each of many tasks."""
    with run_device(directory):
        return wanted.sweep_tasks(directory, round, replicate)


@unit("probe-tasks", "round {round}: probe {shard} by task")
def probe_tasks(directory: Path, round: int, shard: str) -> Path:
    """Score the masked samples of one shard for each of many tasks."""
    with run_device(directory):
        return wanted.probe_tasks(directory, round, shard)


@unit("publish-tasks", "round {round}: publish what each task wants")
def publish_tasks(directory: Path, round: int, probes: list[Path]) -> None:
    """Publish g by task."""
    wanted.publish_tasks(directory, round, probes)


@unit("train-subset", "compare {subset}, seed {seed}")
def train_subset(directory: Path, subset: str, seed: int, chosen: int) -> Path:
    """Train one subset afresh and test it."""
    with run_device(directory):
        return comparison.train_subset(directory, subset, seed, chosen)


@unit("report")
def report(directory: Path) -> Path:
    """Write the report and link it in Prefect."""
    run = Run.load(directory)
    page = reports.write_report(run.home, run.id)
    show(run.home, page, "report", run.id, reports.result_table(run.home, run.id))
    return page


@stage("curate")
def curate(
    catalog: CatalogName,
    home: str = "runs",
    rounds: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    start: str | None = None,
    overrides: dict[str, Any] | None = None,
) -> str:
    """Curate the pool of a catalog; the same parameters go on with the same run. Returns the run's directory.

    Args:
        catalog: what is curated, and how: a catalog that comes with mgd, or a TOML file.
        home: directory of all runs, pools and tables, where the flow runs.
        rounds: rounds of metagradient descent, instead of the catalog's (`descent.rounds`).
        seed: seed of the rounds, instead of the catalog's (`descent.seed`).
        device: where trainings run, say cuda:1, instead of the catalog's (`runtime.device` or `devices`).
        start: the subset that round 0 trains on, say run(id="fashion-1a2b"); otherwise the catalog's `descent.start`.
        overrides: any other keys of the catalog by their dotted names, say {"learner.steps": 500}.
    """
    path, base = find_catalog(catalog), Path(home).resolve()
    said = laid_over(
        overrides, descent__rounds=rounds, descent__seed=seed, runtime__device=device, descent__start=start
    )
    if device is not None:
        said = {"runtime.devices": None, **said}
    options = load_catalog(path, said)
    pool = build_pool(options, base)
    begin("look at what the run is made of")
    run = begin_run(base, path, pool, said)
    with tagged(run.id, options.name), only_flow(run):
        _curate(run.directory, options)
    return str(run.directory)


def _curate(directory: Path, options: BaseCatalog) -> None:
    """All that is to be done with a run that was begun."""
    prepare_pool(directory)
    estimate.prepare(directory)
    if options.descent.rounds:
        gate(directory, options)
    _descend(directory, options)
    chosen = _chosen(directory, options)
    subsets.write_subset(directory, chosen)
    for number in wanted.told_rounds(options, chosen):
        _tell_tasks(directory, options, number)
    compared = [
        train_subset.submit(directory, subset, seed, chosen)
        for seed in dict.fromkeys(options.comparison.seeds)
        for subset in options.comparison.compared
    ]
    begin("compare")
    done: list[Path] = []
    for future in compared:
        done.append(future.result())
        comparison.publish_evaluations(directory, done, chosen)  # to be asked while the others train
        announce("compare", len(done), len(compared))
    comparison.publish_differences(directory, done, chosen)
    report.submit(directory).result()
    mark_finished(directory, options)


def _chosen(directory: Path, options: BaseCatalog) -> int:
    """The round whose subset is the result; where blends stand against rounds, after a few trainings of each."""
    finalists, numbers = selection.finalists(directory), range(1, options.descent.final_trainings + 1)
    if finalists:
        begin("choose between the rounds and the blends")
    futures = [train_finalist.submit(directory, round, number) for number in numbers for round in finalists]
    return selection.choose_round(directory, _ended("choose", futures))


def _tell_tasks(directory: Path, options: BaseCatalog, number: int) -> None:
    """What each task wants of a round's samples."""
    with tags(f"round {number}"):
        begin(f"round {number}: what each task wants")
        for future in [
            sweep_tasks.submit(directory, number, one) for one in range(options.descent.trainings_of(number))
        ]:
            future.result()
        shards = descent.shard_names(directory) if descent.probe_steps_of(options.descent) else []
        futures = [probe_tasks.submit(directory, number, shard) for shard in shards]
        probes = _ended(f"round {number}: probe by task", futures)
        publish_tasks.submit(directory, number, probes).result()


def _ended(what: str, futures: Sequence[PrefectFuture[Path]]) -> list[Path]:
    """The records of units that were submitted, each told when it has ended."""
    records = []
    for done, future in enumerate(futures, start=1):
        records.append(future.result())
        announce(what, done, len(futures))
    return records


def run_curate(catalog: str, home: Path, overrides: dict[str, Any] | None = None) -> Path:
    """Run the flow in this process."""
    return Path(run_flow(curate, catalog, str(home), overrides=overrides))


def _descend(directory: Path, options: BaseCatalog) -> None:
    """Rounds 0 .. R-1 differentiate and step the counts; round R only trains, to evaluate the last counts. With R = 0
    there is no round, unless the comparison ranks by its model."""
    last = options.descent.rounds
    if not last and not ranking.needs_round_0(options):
        return  # comparison only
    shards = descent.shard_names(directory) if descent.probe_steps_of(options.descent) else []
    for number in range(last + 1):
        with tags(f"round {number}"):
            begin(f"round {number}: train")  # in another process, perhaps, whose steps are told in Prefect's log only
            many = options.descent.trainings_of(number)
            first = int(not number and options.targets.many)
            if first:  # its losses are the units of all other trainings
                train_round.submit(directory, number, number < last, 0).result()
            trained = [train_round.submit(directory, number, number < last, one) for one in range(first, many)]
            for future in trained:
                future.result()
            probes: list[Path] = []
            if not number and last and options.descent.learned:
                look_at_pool.submit(directory).result()
            if number < last:
                futures = [probe_shard.submit(directory, number, shard) for shard in shards]
                probes = _ended(f"round {number}: probe", futures)
            finish_round.submit(directory, number, probes).result()
    for number in range(last + 1, options.descent.trained_rounds):
        with tags(f"round {number}"):
            begin(f"round {number}: train on what g and {' and '.join(options.descent.blends[: number - last])} choose")
            publish_blend.submit(directory, number).result()
            train_round.submit(directory, number, differentiate=False).result()
            finish_round.submit(directory, number, []).result()
