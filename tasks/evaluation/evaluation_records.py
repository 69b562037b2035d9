"""What evaluations leave: a record a set, `eval_results.jsonl` in DataComp's form, and rows of `evaluations`.

A record's key is the digest of the model, the set's files and the batch, so the same command goes on where it was, and
another model or a set that was fetched again is evaluated anew. Only tasks of DataComp's go into `eval_results.jsonl`,
in its order: what else stood there would count in its averages. Own sets' metrics are in the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.evaluation.datacomp import aggregates, tasks
from tasks.evaluation.encoders import Encoder
from tasks.evaluation.eval_samples import EvalSetError
from tasks.evaluation.eval_sets import EvalSet, find_eval_sets, open_eval_set
from tasks.evaluation.scoring import Evaluation, evaluate_set
from tasks.files.artefacts import digest, is_done, publish_bytes, publish_json, read_json, reading
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.homes.working_copies import removed
from tasks.tables.published import files, publish, read
from tasks.tables.schemas import TABLES

VERSION = 2  # changes whenever equal models and sets would give other metrics than before
RESULTS = "eval_results.jsonl"


@dataclass(frozen=True)
class Evaluated:
    """A model of which only the name is asked, because all that it is put to was evaluated before."""

    identity: str

    def pixels(self, image: Any) -> Any:
        """Never asked."""
        raise AssertionError("a model that was evaluated is not asked again")

    images = texts = pixels


def are_evaluated(urls: Sequence[str], identity: str, out: Path, batch: int, reader: Reader) -> bool:
    """Whether a model was evaluated on every set in some folders (or on sets), whose files are as they were."""
    found = [open_eval_set(url, reader=reader) for folder in urls for url in find_eval_sets(folder, reader)]
    return all(is_done(_record_of(one, out), _key_of(one, identity, batch, reader)) for one in found)


def evaluate_sets(
    urls: Sequence[str],
    encoder: Encoder,
    out: Path,
    batch: int = 64,
    reader: Reader | None = None,
    any_size: bool = False,
    taken: Collection[str] = (),
) -> list[Evaluation]:
    """Evaluate a model on every set in some folders (or on sets), and write the results file in ``out``: of these and
    of those that the model was evaluated on there before. Returns them all, DataComp's tasks first, in its order.

    Raises EvalSetError when a set cannot be evaluated as it is, two are of one task, or a task's name is ``taken``.
    """
    reader = reader or Reader()
    found = [open_eval_set(url, reader=reader) for folder in urls for url in find_eval_sets(folder, reader)]
    for one in found:
        if one.unread:
            say(f"{one.url}: test is read; left unread: {', '.join(one.unread)}")
        twin = next(other for other in found if other.key == one.key)
        if one.key in taken:
            raise EvalSetError(
                f"{one.url}: task {one.key!r} is the name of a task of the run's catalog, and would take its place in "
                "the table. Rename the folder, or the catalog's task"
            )
        if twin is not one:
            raise EvalSetError(f"{one.url} and {twin.url} are both of task {one.key!r}; name one of them")
    for one in found:
        _evaluate(one, encoder, out, batch, reader, any_size)
    read = [_evaluation(path, encoder.identity) for path in sorted((out / "tasks").glob("*.json"))]
    done = [one for one in read if one is not None]
    place = {key: number for number, key in enumerate(tasks())}
    done.sort(key=lambda one: (place.get(one.key, len(place)), one.key))
    write_results(out / RESULTS, done)
    return done


def write_results(path: Path, done: Sequence[Evaluation]) -> None:
    """Publish the evaluations of DataComp's tasks as a results file; none if there are none of them."""
    lines = [
        {
            "key": one.key,
            "dataset": tasks()[one.key].name,
            "metrics": {**one.metrics, "main_metric": one.metrics.get(one.main)},
        }
        for one in done
        if one.key in tasks()
    ]
    if lines:
        publish_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    else:
        removed(path)
        path.unlink(missing_ok=True)


def evaluation_rows(
    done: Sequence[Evaluation], subset: str, seed: int, seen: int | None, sizes: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """Rows of the evaluations table; metrics without a meaning (null) have none. ``sizes``: samples that the model was
    trained on, with copies, and distinct ones."""
    samples, distinct = sizes or (None, None)
    shared = {"subset": subset, "seed": seed, "samples_seen": seen, "samples": samples}
    shared |= {"distinct_samples": distinct}
    return [
        {**shared, "task": one.key, "metric": name, "value": value}
        | dict(zip(("n", "standard_error"), one.errors.get(name, (one.samples, None)), strict=True))
        for one in done
        for name, value in one.metrics.items()
        if value is not None
    ]


def publish_rows(home: Path, run: str, round: int, rows: Sequence[dict[str, Any]]) -> None:
    """Publish rows of a round's evaluations beside those that are there, in place of those of the same training and
    task."""
    new = {(row["subset"], row["seed"], row["task"]) for row in rows}
    replace_rows(home, run, round, rows, lambda row: (row["subset"], row["seed"], row["task"]) in new)


def replace_rows(
    home: Path, run: str, round: int, rows: Sequence[dict[str, Any]], stale: Callable[[dict[str, Any]], bool]
) -> None:
    """Publish rows of a round's evaluations beside those that are there, but for those that are ``stale``."""
    there = read(home, run, "evaluations", round).to_pylist() if round in files(home, run, "evaluations") else []
    kept = [row for row in there if not stale(row)]
    both = sorted([*kept, *rows], key=lambda row: (row["subset"], row["seed"], row["task"], row["metric"]))
    publish(home, run, "evaluations", round, pa.Table.from_pylist(both, TABLES["evaluations"]))


def format_evaluations(done: Sequence[Evaluation]) -> str:
    """The main metric of each task, and DataComp's averages where all 38 tasks are there."""
    width = max(len(one.key) for one in done)
    lines = [f"{'task':<{width}}  {'metric':<24} {'value':>7}   {'error':<6}  {'samples':>8}"]
    for one in done:
        value = one.metrics.get(one.main)
        shown = "–" if value is None else f"{value:.4f}"
        _, error = one.errors.get(one.main, (0, None))
        spread = "" if value is None or error is None else f"±{error:.4f}"
        lines.append(f"{one.key:<{width}}  {one.main:<24} {shown:>7}  {spread:<7}  {one.samples:>8,}")
    scores = {one.key: value for one in done if one.key in tasks() and (value := one.metrics.get(one.main)) is not None}
    wanted = [task.key for task in tasks().values() if task.metric]
    if set(wanted) <= set(scores):
        lines += ["", *(f"{name:<{width}}  {value:.3f}" for name, value in aggregates(scores).items())]
    else:
        lines += ["", f"{len(scores)} of DataComp's {len(wanted)} tasks: its averages need all of them"]
    return "\n".join(lines)


def _evaluation(path: Path, model: str) -> Evaluation | None:
    """What a record says of a model; None where it is of another."""
    with reading(path):
        record = read_json(path)
        return Evaluation(**record["evaluation"]) if record["model"] == model else None


def _evaluate(found: EvalSet, encoder: Encoder, out: Path, batch: int, reader: Reader, any_size: bool) -> None:
    """Evaluate a set, unless its record says that it is done."""
    path, key = _record_of(found, out), _key_of(found, encoder.identity, batch, reader)
    if not is_done(path, key):
        done = evaluate_set(found, encoder, batch, reader, any_size)
        publish_json(path, {"key": key, "model": encoder.identity, "evaluation": asdict(done)})


def _record_of(found: EvalSet, out: Path) -> Path:
    return out / "tasks" / f"{found.key.replace('/', '-')}.json"


def _key_of(found: EvalSet, identity: str, batch: int, reader: Reader) -> str:
    return digest([VERSION, identity, batch, found.identity(reader)])
