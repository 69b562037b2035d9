"""`mgd subset`: filters and set algebra over the samples of a pool, as DataComp's subset file."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import Make, named
from tasks.files.plurals import harmless

if TYPE_CHECKING:
    from tasks.subset.candidates import Candidates

TEXT = """choose samples by filters and set algebra, and write DataComp's subset file

  mgd subset --list                                                   filters, their parameters, saved subsets
  mgd subset "clip_score(fraction=0.3) & basic" --pool POOL --out a.npy
  mgd subset "a.npy | mine.sql(least=3) - run(id='fashion-1a2b')" --catalog mine.toml --save better

  a & b   the samples of both, as often as in a          a | b   of either, as often as in the one that has more
  a - b   those of a that are not in b, as often as in a a + b   of either, counts added

& binds more tightly than the rest, which go from left to right; parentheses go first. An operand is a filter, a saved
subset, the subset of a run, or a path: of a filter (.sql), of a subset (.npy, or Parquet with uid and count). A path
with other letters than a-z 0-9 _ . / ~ stands in quotes. Where a subset came from is written beside it (.json)."""


def add_subset(make: Make) -> None:
    """Add the command's parser."""
    made = make("subset", _run, TEXT)
    made.add_argument("expression", nargs="?", help="what to choose")
    made.add_argument("--list", action="store_true", dest="listed", help="list filters and saved subsets, and stop")
    of = made.add_mutually_exclusive_group()
    of.add_argument("--catalog", help="choose from the pool of a catalog")
    of.add_argument("--pool", help="choose from a pool's directory (with pool.json), or tars, which are indexed first")
    of.add_argument(
        "--run", dest="run_id", type=named, help="choose from the pool of a run; filters may ask its tables and views"
    )
    text = "choose from DataComp's metadata (Parquet, or directories of it), before any download"
    of.add_argument("--metadata", type=Path, nargs="+", help=text)
    text = "let filters read and write any file, not only what they choose from"
    made.add_argument("--allow-files", action="store_true", help=text)
    to = made.add_mutually_exclusive_group()
    to.add_argument("--out", type=Path, help="file to write (.npy)")
    to.add_argument("--save", metavar="NAME", help="keep it in the home under a name that later expressions can use")


def _run(options: argparse.Namespace) -> int:
    from tasks.subset.algebra import write_choice
    from tasks.subset.candidates import CandidatesError
    from tasks.subset.listing import format_choice, format_filters, place_for

    if options.listed:
        print(format_filters(options.home))
        return 0
    if not options.expression:
        raise CandidatesError("say what to choose, or --list what there is")
    if not (options.out or options.save):
        raise CandidatesError("say where to write it: --out FILE, or --save NAME")
    out = options.out or place_for(options.home, options.save)
    with _candidates(options) as candidates:
        choice = write_choice(candidates, options.expression, out)
    for line in choice.missing:
        print(f"mgd: {harmless(str(line))}", file=sys.stderr)
    print(format_choice(choice))
    return 0


def _candidates(options: argparse.Namespace) -> AbstractContextManager[Candidates]:
    from flows.commands.pools import pool_of_catalog
    from flows.console import shown_progress
    from tasks.pool.naming import indexed
    from tasks.pool.record import load_pool
    from tasks.runs.listing import open_run
    from tasks.subset.candidates import CandidatesError, metadata_candidates, pool_candidates, run_candidates

    home = options.home.resolve()
    if options.metadata:
        return metadata_candidates(home, options.metadata, options.allow_files)
    if options.run_id:
        run = open_run(home, options.run_id)
        record = load_pool(run.pool_directory)
        if record is None:
            raise CandidatesError(f"the pool of run {run.id} is gone from {run.pool_directory}")
        return run_candidates(home, run.id, record, options.allow_files)
    if not (options.catalog or options.pool):
        raise CandidatesError("say what to choose from: --catalog, --pool, --run or --metadata")
    with shown_progress():
        directory = pool_of_catalog(options.catalog, home) if options.catalog else indexed(options.pool, home)
    record = load_pool(directory)
    assert record is not None, "the pool was just found finished"
    return pool_candidates(home, record, options.allow_files)
