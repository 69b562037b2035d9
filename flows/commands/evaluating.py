"""`mgd evaluate`: a model on evaluation sets, with DataComp's metrics, averages and results file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import Make, count, named, whole
from tasks.homes.working_copies import shown

if TYPE_CHECKING:
    from flows.evaluation import Done

TEXT = """evaluate a model, zero-shot, on sets in clip_benchmark's WebDataset form

The model is a run's subset, trained with the catalog's recipe (default: the latest run's chosen subset), or an
open_clip checkpoint. SETS are folders (local or remote) of sets wds_<task>_test, as DataComp's download_evalsets.py and
clip_benchmark_export_wds make them, or single sets. Prints each task's main metric, and the averages over DataComp's 38
tasks where all are there; writes eval_results.jsonl as its evaluate.py does (what submit-folder takes), and every
metric into the table `evaluations`. Stopped or killed, the same command goes on where it was."""


def add_evaluate(make: Make) -> None:
    """Add the command's parser."""
    made = make("evaluate", _run, TEXT)
    made.add_argument("sets", nargs="+", help="a set, or a folder of sets; a path or any fsspec URL")
    made.add_argument("--run", dest="run_id", type=named, help="run whose subset is evaluated (default: the latest)")
    text = "which subset of the run: built-in or a rival of its catalog (default: mgd, the chosen one)"
    made.add_argument("--subset", type=named, help=text)
    text = "seed of the training (default: the first of the catalog's comparison.seeds)"
    made.add_argument("--seed", type=count, help=text)
    made.add_argument("--checkpoint", type=Path, help="a state dict of open_clip instead of a run, say epoch_latest.pt")
    text = "the checkpoint's model: a name that open_clip knows (ViT-B-32) or a model config (JSON)"
    made.add_argument("--model", help=text)
    made.add_argument("--device", default="cpu", help="where a checkpoint runs (default: %(default)s)")
    made.add_argument("--batch", type=whole, default=64, help="images encoded at once (default: %(default)s)")
    made.add_argument("--out", type=Path, help="directory of eval_results.jsonl (default: below the home)")
    text = "also evaluate sets of DataComp's tasks that have not the size of its test sets"
    made.add_argument("--any-size", action="store_true", help=text)


def _run(options: argparse.Namespace) -> int:
    from tasks.evaluation.encoders import CheckpointError

    if options.checkpoint and (options.run_id or not options.model):
        raise CheckpointError("--checkpoint takes --model (its architecture), and no --run")
    idle = [name for name in ("subset", "seed") if getattr(options, name) is not None] if options.checkpoint else []
    idle += [] if options.checkpoint or not options.model else ["model"]
    if idle:
        why = "is of a run, and a checkpoint is none" if options.checkpoint else "is of a --checkpoint"
        raise CheckpointError(f"--{' and --'.join(idle)} {why}; leave it out")
    from flows.console import shown_progress
    from tasks.evaluation.evaluation_records import RESULTS, format_evaluations

    with shown_progress():
        done, out, run = (_checkpoint if options.checkpoint else _subset)(options)
    print(format_evaluations(done))
    print(f"\nresults  {out / RESULTS}" if (out / RESULTS).exists() else "")
    print(f'ask      mgd sql --home {shown(options.home)} --run {run} "select * from evaluations"')
    return 0


def _subset(options: argparse.Namespace) -> Done:
    from flows.evaluation import Done, evaluate_trial, publish_trial, sets_of, trial

    out = options.out
    one = trial(
        options.home.resolve(), options.run_id, options.subset, options.seed, options.batch, out, options.any_size
    )
    done = evaluate_trial(one, sets_of(one, options.sets))
    publish_trial(one, done)
    return Done(done, one.out, one.run)


def _checkpoint(options: argparse.Namespace) -> Done:
    from flows.evaluation import evaluate_checkpoint

    home, given = options.home.resolve(), options
    how = (given.checkpoint, given.model, given.device, given.batch, given.out, given.any_size)
    return evaluate_checkpoint(home, given.sets, *how)
