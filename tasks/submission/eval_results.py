"""Evaluation results in DataComp's form, `eval_results.jsonl`: read as untrusted, for a wrong one is found out in
public.

A line a task: `{"key": .., "dataset": name, "metrics": {.., "main_metric": ..}}`. A file is good when each of the 38
tasks that count is there once, under its own name, with the main metric that the task has, between 0 and 1. Everything
that is wrong is told at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgd_core.errors import UserError
from tasks.evaluation.datacomp import Task, aggregates, tasks

TOLD = 12  # problems that a message lists


class ResultsError(UserError, ValueError):
    """A results file that the official tools, or readers of the leaderboard, would get wrong."""


@dataclass(frozen=True)
class Results:
    """Main metrics of the 38 tasks, by task key, and their averages."""

    path: Path
    scores: dict[str, float]

    @property
    def aggregates(self) -> dict[str, float]:
        """As aggregate_scores.py computes them."""
        return aggregates(self.scores)

    @property
    def by_name(self) -> dict[str, float]:
        """Main metrics by the names under which tasks are listed."""
        return {tasks()[key].name: score for key, score in self.scores.items()}


def read_results(path: str | Path) -> Results:
    """The results in a file; raises ResultsError naming everything that is wrong with it."""
    path = Path(path)
    lines = list(_lines(path))
    if not lines:
        held = f"no result in its {path.stat().st_size:,} bytes"
        raise ResultsError(f"{path}: {held}; the evaluation did not finish: run evaluate.py again")
    problems = [problem for number, line in lines for problem in _problems(number, line)]
    keys = Counter(str(line.get("key")) for _, line in lines if isinstance(line, dict))
    problems += [f"task {key} comes {count} times" for key, count in keys.items() if count > 1]
    missing = [task.key for task in tasks().values() if task.metric and task.key not in keys]
    if missing:
        problems.append(
            f"{len(missing)} of 38 tasks are missing: {', '.join(missing[:5])}{', ...' * (len(missing) > 5)}"
        )
    refuse(f"{path}", problems, ResultsError)
    return Results(
        path, {line["key"]: line["metrics"]["main_metric"] for _, line in lines if tasks()[line["key"]].metric}
    )


def refuse(what: str, problems: list[str], error: type[ValueError]) -> None:
    """Raise `error` with the problems listed, if there are any."""
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems[:TOLD])
        more = f"\n  - and {len(problems) - TOLD} more" if len(problems) > TOLD else ""
        raise error(f"{what}: {len(problems)} problem{'s' * (len(problems) > 1)}{listed}{more}")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and content of each line that is not blank; None for what is no JSON."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path}: not text in UTF-8 ({error})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _problems(number: int, line: Any) -> Iterator[str]:
    """What is wrong with one line."""
    metrics = line.get("metrics") if isinstance(line, dict) else None
    if not isinstance(metrics, dict) or not {"key", "dataset"} <= set(line):
        yield f"line {number}: not a JSON object with key, dataset and metrics"
        return
    task = tasks().get(str(line["key"]))
    if task is None:
        yield f"line {number}: no task {line['key']!r}; the averages would count it all the same"
        return
    if line["dataset"] != task.name:
        yield f"line {number}: task {task.key} is called {line['dataset']!r}, its name is {task.name!r}"
    yield from (f"line {number}: task {task.key}: {problem}" for problem in _metric_problems(task, metrics))


def _metric_problems(task: Task, metrics: dict[str, Any]) -> Iterator[str]:
    main = metrics.get("main_metric")
    if not task.metric:
        if main is not None:
            yield f"main_metric is {main!r}, the task has none (null)"
    elif isinstance(main, bool) or not isinstance(main, int | float) or main != main:
        yield f"main_metric is {main!r}, not a number"
    elif not 0 <= main <= 1:
        yield f"main_metric is {str(main)[:TOLD]}; it is a share, from 0 to 1"
    elif metrics.get(task.metric) != main:
        yield f"main_metric is {main}, its {task.metric} is {metrics.get(task.metric)!r}; they are the same number"
