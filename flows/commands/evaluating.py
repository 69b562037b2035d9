"""`mgd evaluate`: a model on evaluation sets, with DataComp's metrics, averages and results file."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.commands import Make, count, named, whole

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
    from tasks.encoders import CheckpointError

    if options.checkpoint and (options.run_id or not options.model):
        raise CheckpointError("--checkpoint takes --model (its architecture), and no --run")
    idle = [name for name in ("subset", "seed") if getattr(options, name) is not None] if options.checkpoint else []
    idle += [] if options.checkpoint or not options.model else ["model"]
    if idle:
        why = "is of a run, and a checkpoint is none" if options.checkpoint else "is of a --checkpoint"
        raise CheckpointError(f"--{' and --'.join(idle)} {why}; leave it out")
    from flows.console import shown_progress
    from tasks.evaluation_records import RESULTS, format_evaluations

    with shown_progress():
        done, out, run = (_checkpoint if options.checkpoint else _subset)(options)
    print(format_evaluations(done))
    print(f"\nresults  {out / RESULTS}" if (out / RESULTS).exists() else "")
    print(f'ask      mgd sql --home {options.home} --run {run} "select * from evaluations"')
    return 0


def _subset(options: argparse.Namespace):  # type: ignore[no-untyped-def]  # torch is imported late: --help stays quick
    from flows.runtime.device import device_lock
    from tasks.comparison import known_subset, subset_counts
    from tasks.eval_sets import find_eval_sets
    from tasks.evaluation_records import Evaluated, are_evaluated, evaluate_sets, evaluation_rows, publish_rows
    from tasks.listing import chosen_round, latest_run, open_run
    from tasks.progress import begin
    from tasks.remote_files import Reader
    from tasks.runs import NoRun
    from tasks.trained import chosen_counts, run_encoder, trained_identity
    from tasks.workbench import opened

    run = open_run(options.home.resolve(), options.run_id or latest_run(options.home))
    chosen = chosen_round(run)
    if chosen is None:
        raise NoRun(f"run {run.id} has chosen no round yet; finish it with `mgd curate`")
    subset = options.subset or "mgd"
    known_subset(run.catalog, subset)
    own = {"target", "heldout", *run.catalog.tests}
    reader = Reader(run.catalog.pool.remote)
    for folder in options.sets:
        find_eval_sets(folder, reader)  # one that is not there is told before anything is trained
    seed = run.catalog.comparison.seeds[0] if options.seed is None else options.seed
    out = options.out or run.directory / "evaluation" / f"{subset}-{seed}"
    put = {"out": out, "batch": options.batch, "reader": reader, "any_size": options.any_size, "taken": own}
    counts = chosen_counts(run, chosen) if subset == "mgd" else None
    known = None if counts is None else trained_identity(run, counts, seed)
    if counts is not None and known and are_evaluated(options.sets, known, out, options.batch, reader):
        done = evaluate_sets(options.sets, Evaluated(known), **put)
    else:
        begin("read the run's pool and targets")
        with device_lock(run.home, run.catalog.runtime.device), opened(run.directory) as bench:
            counts = subset_counts(bench, subset, seed, chosen)
            encoder = run_encoder(bench, counts, subset, seed)
            done = evaluate_sets(options.sets, encoder, **put)
    seen = run.catalog.learner.steps * run.catalog.learner.batch
    sizes = (int(counts.sum()), int((counts > 0).sum()))
    publish_rows(run.home, run.id, chosen, evaluation_rows(done, subset, seed, seen, sizes))
    return done, out, run.id


def _checkpoint(options: argparse.Namespace):  # type: ignore[no-untyped-def]
    from flows.runtime.device import device_lock
    from tasks.encoders import open_clip_encoder
    from tasks.evaluation_records import evaluate_sets, evaluation_rows, publish_rows

    home = options.home.resolve()
    with device_lock(home, options.device):
        encoder = open_clip_encoder(options.checkpoint, options.model, options.device)
        name = f"checkpoint-{encoder.identity[:8]}"
        out = options.out or home / "evaluations" / name
        done = evaluate_sets(options.sets, encoder, out, options.batch, None, options.any_size)
    publish_rows(home, name, 0, evaluation_rows(done, "checkpoint", 0, None))
    return done, out, name
