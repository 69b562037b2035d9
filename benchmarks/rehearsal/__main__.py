"""Does the whole way of a DataComp submission work, from the downloader's folder to the submission's?

`python -m benchmarks.rehearsal [--datacomp CHECKOUT [--python INTERPRETER]]` makes a pool in the exact form of
DataComp's downloader (12,800 links, dead ones and drifted ones among them, metadata with npz) and evaluation sets in
clip_benchmark's, of the embedded pictures, and goes the way of docs/datacomp.md: census, filters, plan, two rounds of
`mgd curate` on catalogs/datacomp-debug.toml with eight tasks, export, shards, DataComp's own resharder.py,
baselines.py, train.py and aggregate_scores.py (from the checkout, by an interpreter that has their requirements),
evaluation, submission. Everything is checked: counts, uids, bytes, and scores against each other. A row a step;
`--quick` takes 400 links and fewer steps.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks._envelope import emit
from benchmarks._server import own_server
from benchmarks.rehearsal import official as theirs
from benchmarks.rehearsal import product
from benchmarks.rehearsal.official import Official
from benchmarks.rehearsal.pool import make_pool
from benchmarks.rehearsal.product import Rehearsal
from benchmarks.rehearsal.sets import write_sets
from benchmarks.rehearsal.steps import Step, Steps
from tasks.files.package_data import CATALOGS

PAIRS, SHARD, PICTURES = 12_800, 1000, 400
MODEL = CATALOGS / "models" / "vit-tiny-64.json"
QUICK = (
    "learner.steps=12", "learner.batch=16", "learner.warmup=2", "learner.window=200", "descent.window_start=9",
    "descent.probe_steps=[9]",
)  # fmt: skip
"""What the quick form says otherwise of the debug catalog."""


def main() -> None:
    """Go the way, print a row a step and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datacomp", type=Path, help="a checkout of DataComp's repository")
    text = "an interpreter that has what its scripts import (default: MGD_DATACOMP_PYTHON, or this one)"
    parser.add_argument("--python", default=os.environ.get("MGD_DATACOMP_PYTHON", sys.executable), help=text)
    parser.add_argument("--place", type=Path, help="empty directory to work in, which stays (default: one that goes)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="400 links and fewer steps")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mgd-rehearsal-") as scratch:
        place = (options.place or Path(scratch)).absolute()
        checkout = options.datacomp and options.datacomp.absolute()
        steps = rehearse(place, Official(checkout, options.python), options.quick, options.overrides)
    for step in steps.done:
        if step.status == "failed":
            print(f"\n{step.name}:\n{step.told}", file=sys.stderr)
    emit(
        "rehearsal",
        {
            "quick": options.quick,
            "steps": len(steps.done),
            "failed": steps.count("failed"),
            "official_run": steps.count("ok", official=True),
            "official_steps": sum(one.official for one in steps.done),
            "not_run": {one.name: one.told for one in steps.done if one.status == "not run"},
            "seconds": round(time.monotonic() - began, 1),
        },
    )
    sys.exit(1 if steps.count("failed") else 0)


def rehearse(place: Path, official: Official, quick: bool, overrides: list[str]) -> Steps:
    """All steps, under a Prefect server of their own."""
    with own_server(place / "server"):
        return taken(begun(place, quick, overrides), official)


def begun(place: Path, quick: bool, overrides: list[str]) -> Rehearsal:
    """The pool's model and the sets, which are written."""
    pairs, shard, pictures = (400, 100, 40) if quick else (PAIRS, SHARD, PICTURES)
    pool = make_pool(place / "datacomp", pairs, shard)
    said = (*(QUICK if quick else ()), *overrides)
    return Rehearsal(place, pool, write_sets(place / "evalsets", place / "evalsets-rest", pictures), said, shard)


def taken(given: Rehearsal, official: Official) -> Steps:
    """The steps, one after the other."""
    steps = Steps()
    take, ours, datacomps = steps.take, given.place / "shards-of-mgd", given.place / "shards-of-datacomp"
    made = take("pool in the downloader's form", partial(product.make, given))
    take("mgd census", partial(product.census, given), [made])
    take("mgd subset: filters", partial(product.filters, given), [made])
    take("baselines.py", partial(theirs.baselines, official, given), [made], official=True)
    take("mgd plan", partial(product.plan, given), [made])
    curated = take("mgd curate", partial(product.curate, given), [made])
    take("mgd curate, again", partial(product.again, given), [curated])
    exported = take("mgd export", partial(product.export, given), [curated])
    sharded = take("mgd reshard", partial(product.reshard, given), [exported])
    resharded = take("resharder.py", partial(theirs.resharder, official, given), [sharded], official=True)
    trained: list[tuple[Step, Path]] = []
    for shards, before in ((ours, sharded), (datacomps, resharded)):
        work = partial(theirs.train, official, given, MODEL, shards)
        trained.append((take(f"train.py on {shards.name}", work, [before], official=True), shards))
    take("mgd evaluate: the run", partial(product.evaluate, given, None, MODEL), [exported])
    step, shards = trained[0]
    checkpoint = theirs.checkpoint(given, shards) if step.status == "ok" else None
    evaluated = take("mgd evaluate: the submission", partial(product.evaluate, given, checkpoint, MODEL), [exported])
    info = theirs.info(given, shards) if checkpoint else None
    submitted = take("mgd submit-folder", partial(product.submit, given, ours, info), [evaluated, sharded])
    take("aggregate_scores.py", partial(theirs.aggregate, official, given), [submitted], official=True)
    return steps


if __name__ == "__main__":
    main()
