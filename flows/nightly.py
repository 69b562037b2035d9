"""The flow `nightly`: index what is new, take the census, curate from the last counts, export, evaluate.

Each stage is a flow of its own, and skips what has not changed since the last night, which it says. Which run a catalog
stands at, and what that one started from, is kept in ``<home>/nightly/<catalog>.json``, written when the run is done;
cut off before, the next night goes on with the same run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from flows.census import census
from flows.curate import curate
from flows.evaluate import evaluate
from flows.export import export
from flows.pool_building import build_pool
from flows.runtime.operating import stage, tagged
from flows.runtime.parameters import CatalogName, laid_over
from tasks.catalog.catalogs import BaseCatalog, find_catalog, load_catalog
from tasks.curation.begin import identity
from tasks.curation.continued import continued_counts
from tasks.curation.finished import finished_run
from tasks.evaluation.eval_sets import find_eval_sets
from tasks.files.artefacts import digest, publish_json, read_json
from tasks.files.plurals import counted
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.pool.record import PoolRecord
from tasks.subset.sources import saved_subset


@stage("nightly")
def nightly(
    catalog: CatalogName,
    home: str = "runs",
    evaluation_sets: list[str] | None = None,
    export_as: Literal["datacomp", "parquet", "jsonl", "webdataset", "nothing"] = "parquet",
    overrides: dict[str, Any] | None = None,
) -> str:
    """Everything that a catalog's pool needs when it has grown: census, curation from the last counts, export and
    evaluation; what has not changed is skipped. Returns the run's directory.

    Args:
        catalog: a catalog that comes with mgd, or a TOML file.
        home: directory of all runs, pools and tables, where the flow runs.
        evaluation_sets: sets in clip_benchmark's form, or folders of them, that the chosen subset is evaluated on.
        export_as: how the chosen subset is written, into the run's directory.
        overrides: keys of the catalog said otherwise, by their dotted names, say {"descent.rounds": 5}.
    """
    path, base = find_catalog(catalog), Path(home).resolve()
    options = load_catalog(path, overrides)
    for folder in evaluation_sets or ():
        find_eval_sets(folder, Reader(options.pool.remote))  # one that is not there is told before anything is trained
    pool = build_pool(options, base)
    with tagged(options.name):
        if options.pool.form.has_pictures:
            census(catalog, home, overrides)
        directory = _curated(path, base, overrides, options, pool)
        if export_as != "nothing":
            export(export_as, home, directory.name)
        if evaluation_sets:
            evaluate(evaluation_sets, home, directory.name)
        else:
            say("nightly: no evaluation sets are named, so nothing is evaluated")
    return str(directory)


def _curated(path: Path, home: Path, overrides: dict[str, Any] | None, options: BaseCatalog, pool: PoolRecord) -> Path:
    """The directory of tonight's run: the last one, where neither pool nor catalog changed."""
    record = home / "nightly" / f"{options.name}.json"
    last = read_json(record) if record.exists() else None
    key = digest([identity(options, home), pool.samples_digest])
    if last is not None and last["key"] == key:
        start = _here(home, last["start"])
        if standing := finished_run(path, home, laid_over(overrides, descent__start=start)):
            say(f"nightly: neither pool nor catalog changed, run {standing.name} stands")
            return standing
    else:
        start = _start(home, last, options, pool)
    directory = Path(curate(str(path), str(home), overrides=laid_over(overrides, descent__start=start)))
    publish_json(record, {"key": key, "start": start, "run": directory.name})
    return directory


def _here(home: Path, start: str | None) -> str | None:
    """What a night started from, where the home is now: it may have been moved since."""
    place = home / "nightly" / Path(start.strip('"')).name if start else home
    return f'"{place}"' if place.is_file() else start


def _start(home: Path, last: dict[str, Any] | None, options: BaseCatalog, pool: PoolRecord) -> str | None:
    """What a new run starts from: the last counts, if there are any."""
    if last is None or not (home / "runs" / last["run"]).is_dir():
        return options.descent.start
    saved = f"nightly_{digest([options.name, last['run'], pool.samples_digest])[:16]}"  # by name: a home may move
    new = continued_counts(home, last["run"], pool, saved_subset(home, saved))
    say(f"nightly: going on from the counts of {last['run']}, with {counted(new, 'new sample')}")
    return saved
