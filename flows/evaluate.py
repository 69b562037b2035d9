"""The flow `evaluate`: the model of a run's subset, trained once, on each evaluation set as a task of its own."""

from __future__ import annotations

from pathlib import Path

from flows import evaluation
from flows.runtime.artifacts import show_table
from flows.runtime.in_flight import in_flight
from flows.runtime.operating import stage, tagged, unit
from tasks.files.progress import announce, say


@unit("evaluate-set", "evaluate on {url}")
def evaluate_set(url: str, one: evaluation.Trial) -> None:
    """Evaluate on one set; the first one trains the model, unless it is kept from before."""
    evaluation.evaluate_trial(one, [url])


@unit("publish-evaluations", "publish {one.subset}, seed {one.seed}")
def publish(one: evaluation.Trial, sets: list[str]) -> None:
    """Write the results file and the table's rows, and show the main metrics."""
    done = evaluation.evaluate_trial(one, sets)
    evaluation.publish_trial(one, done)
    rows = [{"task": each.key, "metric": each.main, "value": each.metrics.get(each.main)} for each in done]
    show_table("evaluations", f"{one.subset}, seed {one.seed}, of {one.run}", rows)


@stage("evaluate", of_run=True)
def evaluate(
    sets: list[str],
    home: str = "runs",
    run: str | None = None,
    subset: str = "mgd",
    seed: int | None = None,
    batch: int = 64,
    any_size: bool = False,
) -> str:
    """Evaluate a run's subset, zero-shot; what was evaluated before, on sets that are as they were, is not again.
    Returns the directory of the results file.

    Args:
        sets: evaluation sets in clip_benchmark's WebDataset form, or folders of them; paths or fsspec URLs.
        home: directory of all runs, pools and tables, where the flow runs.
        run: the run's id; otherwise the latest.
        subset: mgd, what the run chose, or a rival of its catalog.
        seed: seed of the training; otherwise the first of the catalog's `comparison.seeds`.
        batch: images encoded at once.
        any_size: take sets of DataComp's tasks that have not the size of its test sets.
    """
    one = evaluation.trial(Path(home).resolve(), run, subset, seed, batch, any_size=any_size)
    found = evaluation.sets_of(one, sets)
    with tagged(one.run):
        if evaluation.known(one, found):
            say(f"evaluate: {one.subset} of {one.run} was evaluated on these {len(found)} sets, and nothing changed")
        else:
            evaluate_set.submit(found[0], one).result()  # trains the model, which the others find
            announce("evaluate", 1, len(found))
            for done, _ in enumerate(in_flight(evaluate_set, found[1:], one), start=2):
                announce("evaluate", done, len(found))
        publish.submit(one, found).result()
    return str(one.out)
