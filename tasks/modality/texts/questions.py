"""The questions of a target: samples whose completions should be likely, or prompts with options, one of them right.

Strict where the pool is lenient: a target is small and somebody chose it, so one bad record stops the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.catalog_files import CatalogError
from tasks.remote_files import Reader
from tasks.roles import Roles
from tasks.text_files import Fault, find_texts, records
from tasks.text_options import QuestionOptions
from tasks.text_records import prompt_and_completion


@dataclass(frozen=True)
class Question:
    """A prompt and its options, of which `right` is the place of the right one; a single option is a completion."""

    prompt: str
    options: tuple[str, ...]
    right: int

    @property
    def identity(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.prompt, self.options[self.right]


def load_questions(name: str, options: QuestionOptions, reader: Reader) -> list[Question]:
    """All questions of a task, in their order.

    Raises:
        CatalogError: the source holds none, or a record of it is no question; says which and why.
    """
    found = []
    for url in find_texts(options.source, reader.options).urls:
        for key, record in records(url, reader):
            where = f"task '{name}': {url}, record {key or 'file'}"
            if isinstance(record, Fault):
                raise CatalogError(f"{where}: {record.reason.replace('_', ' ')} ({record.detail}). Repair it")
            try:
                found.append(_question(record, options))
            except ValueError as error:
                told = getattr(error, "detail", "") or str(error)
                raise CatalogError(f"{where}: {told}. Repair or remove it") from error
    if not found:
        raise CatalogError(f"task '{name}': {options.source} has no samples, so there would be nothing to lower")
    if len({len(one.options) > 1 for one in found}) > 1:
        raise CatalogError(f"task '{name}': some of {options.source} have options, others not; make them two tasks")
    return found


def check_options(tasks: Roles[list[Question]]) -> None:
    """See that every question of every task has options to choose from.

    Raises:
        CatalogError: one has not.
    """
    for _, name, questions in tasks:
        without = next((one for one in questions if len(one.options) < 2), None)
        if without is not None:
            raise CatalogError(
                f"targets.loss compares options, but task '{name}' has completions without options, for instance after "
                f"{without.prompt[:80]!r}. Give every question options, or take loss = 'completion'"
            )


def check_apart(tasks: Roles[list[Question]]) -> None:
    """Test data must not choose, and neither may be differentiated; tests may share questions.

    Raises:
        CatalogError: a question stands in two of target, held-out target and tests.
    """
    owner: dict[tuple[str, str], str] = {}
    for role, name, questions in tasks:
        shared = [one for one in questions if owner.setdefault(one.identity, role) != role]
        if shared:
            raise CatalogError(
                f"{len(shared)} of the {len(questions)} questions of '{name}' are also in {owner[shared[0].identity]}, "
                f"for instance {shared[0].prompt[:80]!r}: what is tested on must be apart"
            )


def _question(record: dict[str, Any], options: QuestionOptions) -> Question:
    if "options" not in record:
        prompt, completion = prompt_and_completion(record, options.columns)
        return Question(prompt, (completion,), 0)
    given, texts, answer = record.get(options.columns.prompt), record["options"], record.get("answer")
    if not isinstance(given, str) or not given.strip():
        raise ValueError(f"no text in '{options.columns.prompt}'; there are: {', '.join(sorted(record))}")
    if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ValueError("'options' is not a list of two or more texts")
    if isinstance(answer, str) and answer in texts:
        answer = texts.index(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        raise ValueError(f"answer {answer!r} is neither one of the {len(texts)} options nor the place of one, from 0")
    return Question(given, tuple(texts), answer)
