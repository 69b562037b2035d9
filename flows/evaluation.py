"""What `mgd evaluate` and the flow of that name do: a run's subset, or a checkpoint, on evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flows.runtime.device import free_device
from tasks.catalog.subset_names import file_name
from tasks.curation.comparison import known_subset, subset_counts
from tasks.curation.trained import published_counts, run_encoder, trained_identity
from tasks.evaluation.encoders import open_clip_encoder
from tasks.evaluation.eval_sets import find_eval_sets
from tasks.evaluation.evaluation_records import Evaluated, are_evaluated, evaluate_sets, evaluation_rows, publish_rows
from tasks.evaluation.scoring import Evaluation
from tasks.files.progress import begin
from tasks.files.remote_files import Reader
from tasks.homes.opening import own
from tasks.modality.machine import devices_of
from tasks.modality.registry import open_recipe
from tasks.runs.listing import open_run
from tasks.runs.run import Run
from tasks.tables.run_folders import NoRun, chosen_round, latest_run


class Trial(NamedTuple):
    """A subset of a run, trained with one seed, and how its model is evaluated."""

    home: Path
    run: str
    subset: str
    seed: int
    batch: int
    out: Path
    any_size: bool


class Done(NamedTuple):
    """Evaluations, where their results file lies, and what their rows go by in the home's tables."""

    evaluations: list[Evaluation]
    out: Path
    run: str


def trial(
    home: Path,
    run: str | None,
    subset: str | None = None,
    seed: int | None = None,
    batch: int = 64,
    out: Path | None = None,
    any_size: bool = False,
) -> Trial:
    """What is to be evaluated; raises NoRun where the run (default: the latest) has chosen nothing yet."""
    found = open_run(home, run or latest_run(home))
    if chosen_round(found.home, found.id) is None:
        raise NoRun(f"run {found.id} has chosen no round yet; finish it with `mgd curate`")
    subset = subset or "mgd"
    known_subset(found.catalog, subset)
    seed = found.catalog.comparison.seeds[0] if seed is None else seed
    return Trial(
        home,
        found.id,
        subset,
        seed,
        batch,
        out or found.directory / "evaluation" / f"{file_name(subset)}-{seed}",
        any_size,
    )


def sets_of(one: Trial, folders: Sequence[str]) -> list[str]:
    """The sets in some folders; one that is not there is told before anything is trained."""
    reader = _reader(open_run(one.home, one.run))
    return [url for folder in folders for url in find_eval_sets(folder, reader)]


def known(one: Trial, sets: Sequence[str]) -> str | None:
    """What the model is known by, if it was evaluated on all of the sets as they are."""
    run = open_run(one.home, one.run)
    if one.subset != "mgd":
        return None
    identity = trained_identity(run, published_counts(run, _chosen(one)), one.seed)
    there = identity and are_evaluated(sets, identity, one.out, one.batch, _reader(run))
    return identity if there else None


def evaluate_trial(one: Trial, sets: Sequence[str]) -> list[Evaluation]:
    """Evaluate the trial's model, trained where it is not kept, on sets; what it was evaluated on there before comes
    with them."""
    run = open_run(one.home, one.run)
    put = {"out": one.out, "batch": one.batch, "reader": _reader(run), "any_size": one.any_size}
    put["taken"] = {"target", "heldout", *run.catalog.tests}
    identity = known(one, sets)
    if identity:
        return evaluate_sets(sets, Evaluated(identity), **put)  # type: ignore[arg-type]
    begin("read the run's pool and targets")
    with free_device(devices_of(run.catalog.runtime), run.directory), open_recipe(run.directory) as recipe:
        counts = subset_counts(recipe, one.subset, one.seed, _chosen(one))
        return evaluate_sets(sets, run_encoder(recipe, counts, one.subset, one.seed), **put)  # type: ignore[arg-type]


def publish_trial(one: Trial, done: Sequence[Evaluation]) -> None:
    """Put the trial's evaluations into the table `evaluations`."""
    own(one.home, one.run)
    run, chosen = open_run(one.home, one.run), _chosen(one)
    if one.subset == "mgd":
        counts = published_counts(run, chosen)
    else:
        with open_recipe(run.directory) as recipe:
            counts = subset_counts(recipe, one.subset, one.seed, chosen)
    seen = run.catalog.learner.steps * run.catalog.learner.batch
    sizes = (int(counts.sum()), int((counts > 0).sum()))
    publish_rows(run.home, run.id, chosen, evaluation_rows(done, one.subset, one.seed, seen, sizes))


def evaluate_checkpoint(
    home: Path,
    sets: Sequence[str],
    checkpoint: Path,
    model: str,
    device: str,
    batch: int,
    out: Path | None,
    any_size: bool,
) -> Done:
    """Evaluate a state dict of open_clip."""
    with free_device([device], "a checkpoint's evaluation"):
        encoder = open_clip_encoder(checkpoint, model, device)
        name = f"checkpoint-{encoder.identity[:8]}"
        own(home, name)
        out = out or home / "evaluations" / name
        done = evaluate_sets(sets, encoder, out, batch, None, any_size)
    publish_rows(home, name, 0, evaluation_rows(done, "checkpoint", 0, None))
    return Done(done, out, name)


def _chosen(one: Trial) -> int:
    chosen = chosen_round(one.home, one.run)
    assert chosen is not None
    return chosen


def _reader(run: Run) -> Reader:
    return Reader(run.catalog.pool.remote)
