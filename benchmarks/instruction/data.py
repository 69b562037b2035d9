"""Real instruction data with harmful and irrelevant tasks in it: natural instructions, as BIG-bench packages them.

The target is MC-TACO (time commonsense: how long, how often, when, what comes next). Its crowd workers wrote right
answers to a question in one task and, in another, wrong answers to the same questions: beside each other in a pool they
are good and harmful data that nothing but the answer tells apart, since the tasks' definitions are left out of prompts.
Irrelevant tasks (writing questions, facts, types of questions) make up the rest. Questions are split by passage, so no
passage of the pool stands in target, held-out or test questions, nor in two of these.

Source: PyPI ``bigbench`` 1.0.0, the sdist alone (358 MB; it is read where it lies and need not be installed).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgd_core.training.order import generator

FAMILY = "/benchmark_tasks/natural_instructions/"
RIGHT = ("event_duration", "transient_stationary", "event_ordering", "absolute_timepoint", "frequency")
IRRELEVANT = (  # groups of tasks, each with the same share
    tuple(f"mctaco_question_generation_{kind}" for kind in RIGHT),
    ("winogrande_answer_generation",),
    ("qasc_generate_related_fact",),
    ("qasc_combined_fact",),
    ("qasc_find_overlapping_words",),
    ("qasc_question_generation",),
    ("essential_terms_identifying_essential_words",),
    ("miscellaenous_question_typing",),
)
STREAM = 5  # names the generator among those of one seed
LONGEST, LONGEST_ANSWER = 200, 60  # characters of an input, of an answer: rows stay short, and so do steps
WRONG_OPTIONS = 2  # of a question, at most

Task = Mapping[str, Sequence[str]]  # answers of each input


class InstructionDataError(ValueError):
    """The source does not hold what the benchmark is made of; the message says what is missing."""


@dataclass(frozen=True)
class Sample:
    """One member of the pool. ``truth_clean``: right and relevant; False: a wrong answer; None: another task."""

    prompt: str
    completion: str
    task: str
    truth_clean: bool | None = None


@dataclass(frozen=True)
class Question:
    """One question with its options, of which ``answer`` is right."""

    prompt: str
    options: tuple[str, ...]
    answer: int
    task: str


@dataclass(frozen=True)
class Sizes:
    """How many questions of each kind, and pool samples with right, wrong and irrelevant completions."""

    test: int = 420
    heldout: int = 120
    target: int = 120
    right: int = 480
    wrong: int = 600
    irrelevant: int = 720


@dataclass(frozen=True)
class InstructionData:
    """The pool and three sets of questions without a passage in common."""

    pool: list[Sample]
    target: list[Question]
    heldout: list[Question]
    test: list[Question]

    @property
    def texts(self) -> list[str]:
        """Everything that a tokenizer will meet."""
        asked = [question for rows in (self.target, self.heldout, self.test) for question in rows]
        said = [text for sample in self.pool for text in (sample.prompt, sample.completion)]
        return said + [text for question in asked for text in (question.prompt, *question.options)]

    def write(self, folder: Path) -> None:
        """pool.jsonl, target.jsonl, heldout.jsonl and test.jsonl."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in vars(self).items():
            lines = (json.dumps({k: v for k, v in asdict(row).items() if v is not None}) for row in rows)
            (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def natural_instructions(sdist: Path, sizes: Sizes, seed: int) -> InstructionData:
    """The benchmark's data from the sdist of ``bigbench``: a function of its arguments alone.

    Raises:
        InstructionDataError: tasks are missing, or hold too few questions or samples.
    """
    return assembled(read_tasks(sdist), sizes, seed)


def read_tasks(sdist: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """Answers of each input of each natural-instructions task, by the task's name without its number."""
    tasks = {}
    with tarfile.open(sdist) as tar:
        for member in tar:
            _, _, name = member.name.partition(FAMILY)
            file = tar.extractfile(member) if name.endswith("/task.json") and "/" in name[:-10] + "/" else None
            if file is None or not name.startswith("subtask"):
                continue
            examples = json.load(file)["examples"]
            tasks[name.split("/")[0].partition("_")[2]] = {
                _tidy(one["input"]): tuple(_tidy(answer) for answer in _listed(one["target"])) for one in examples
            }
    if not tasks:
        raise InstructionDataError(f"{sdist}: no natural_instructions tasks inside; it is not the sdist of bigbench")
    return tasks


def assembled(tasks: Mapping[str, Task], sizes: Sizes, seed: int) -> InstructionData:
    """Split the questions by passage and draw the pool's samples from what is left.

    Raises:
        InstructionDataError: tasks are missing, or hold too few questions or samples.
    """
    for name in (*(f"mctaco_{kind}{RIGHT[0]}" for kind in ("answer_generation_", "wrong_answer_generation_")),):
        if name not in tasks:
            raise InstructionDataError(f"task {name} is missing; there are {', '.join(sorted(tasks)) or 'none'}")
    passages = _shuffled(sorted({_passage(p) for kind in RIGHT for p in tasks[_good(kind)]}), seed, 0)
    kept, sets = list(passages), []
    for number, size in enumerate((sizes.test, sizes.heldout, sizes.target)):
        questions: list[Question] = []
        while len(questions) < size:
            if not kept:
                raise InstructionDataError(f"too few questions for {sizes}: all passages are used up")
            questions += _questions(tasks, kept.pop(), seed)
        sets.append(_shuffled(questions[:size], seed, 1 + number))
    pool = _pool(tasks, set(kept), set(passages) - set(kept), sizes, seed)
    return InstructionData(pool, sets[2], sets[1], sets[0])


def _questions(tasks: Mapping[str, Task], passage: str, seed: int) -> Iterator[Question]:
    """All questions on a passage that have right and wrong answers, with one right option and some wrong ones."""
    for kind in RIGHT:
        for prompt, answers in tasks[_good(kind)].items():
            right = _short(answers)
            wrong = [x for x in _short(tasks[_bad(kind)].get(prompt, ())) if x not in right]
            if _passage(prompt) != passage or not right or not wrong or len(prompt) > LONGEST:
                continue
            draws = generator(seed, STREAM, 100, *prompt.encode())
            options = [right[draws.integers(len(right))], *(wrong[i] for i in draws.permutation(len(wrong)))]
            order = draws.permutation(min(len(options), 1 + WRONG_OPTIONS))
            shown = tuple(_completion(options[i]) for i in order)
            yield Question(_prompt(prompt), shown, int((order == 0).argmax()), _good(kind))


def _pool(tasks: Mapping[str, Task], passages: set[str], taken: set[str], sizes: Sizes, seed: int) -> list[Sample]:
    """Samples on ``passages`` with right and wrong answers, and as many of each irrelevant task, shuffled."""
    right = _samples(tasks, [_good(kind) for kind in RIGHT], passages, True)
    wrong = _samples(tasks, [_bad(kind) for kind in RIGHT], passages, False)
    chosen = [*_drawn(right, sizes.right, seed, 5), *_drawn(wrong, sizes.wrong, seed, 6)]
    each = sizes.irrelevant // len(IRRELEVANT)
    for number, names in enumerate(IRRELEVANT):
        all_of_it = [s for s in _samples(tasks, names, None, None) if _passage(s.prompt) not in taken]
        chosen += _drawn(all_of_it, each, seed, 7 + number)
    return _shuffled(chosen, seed, 4)


def _samples(
    tasks: Mapping[str, Task], names: Iterable[str], passages: set[str] | None, clean: bool | None
) -> list[Sample]:
    return [
        Sample(_prompt(given), _completion(answer), name, clean)
        for name in names
        for given, answers in tasks[name].items()
        if passages is None or _passage(given) in passages
        for answer in answers
        if len(given) <= LONGEST and len(answer) <= LONGEST_ANSWER
    ]


def _drawn(samples: list[Sample], n: int, seed: int, stream: int) -> list[Sample]:
    if len(samples) < n:
        told = f"{len(samples)} samples of {samples[0].task if samples else 'a task'} and its like"
        raise InstructionDataError(f"{told}, but {n} are wanted: lower the sizes, or raise LONGEST = {LONGEST}")
    return _shuffled(samples, seed, stream)[:n]


def _shuffled(rows: Sequence[Any], seed: int, stream: int) -> list[Any]:
    return [rows[i] for i in generator(seed, STREAM, stream).permutation(len(rows))]


def _short(answers: Sequence[str]) -> list[str]:
    return [answer for answer in answers if len(answer) <= LONGEST_ANSWER]


def _good(kind: str) -> str:
    return f"mctaco_answer_generation_{kind}"


def _bad(kind: str) -> str:
    return f"mctaco_wrong_answer_generation_{kind}"


def _passage(prompt: str) -> str:
    """What stands before the question; a passage is given with several."""
    return prompt.removesuffix("\nAnswer:").split("\nQuestion:")[0]


def _prompt(given: str) -> str:
    return f"{given}\nAnswer:"


def _completion(answer: str) -> str:
    return f" {answer}"


def _tidy(text: str) -> str:
    """Lines without the blanks at their ends."""
    return "\n".join(line.strip() for line in text.strip().split("\n"))


def _listed(target: str | list[str]) -> list[str]:
    return [target] if isinstance(target, str) else target
