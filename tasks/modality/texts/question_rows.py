"""Questions as rows for a language model: bound to a learner they are a task (mgd_core.models.multiple_choice)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mgd_core.autodiff.objective import Rows
from mgd_core.models.causal_lm import CausalLmObjective
from mgd_core.models.multiple_choice import AnswerTask, Asked
from mgd_core.training.learner import Learner
from tasks.catalog.text_catalog import TextCatalog
from tasks.modality.recipe import objective_of
from tasks.modality.texts.questions import Question
from tasks.modality.texts.sequences import Sequences, TextTokenizer

AT_ONCE = 16  # questions of a forward and backward pass; changes memory, and results by rounding only


@dataclass(frozen=True)
class Parts(Sequence[Any]):
    """Something made for each of several ranges of positions, when it is asked for."""

    make: Callable[[int, int], Any]
    edges: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, number: Any) -> Any:
        return self.make(self.edges[number], self.edges[range(len(self))[number] + 1])


@dataclass(frozen=True)
class QuestionRows:
    """Questions as sequences: first all right answers, then all options of all questions (none for completions)."""

    sequences: Sequences
    questions: list[Question]

    def only(self, kept: Sequence[int]) -> QuestionRows:
        """These of the questions, in this order."""
        n, firsts = len(self), np.cumsum([0, *(len(question.options) for question in self.questions)])
        options = [np.arange(*firsts[i : i + 2]) + n for i in kept] if self._has_options else []
        sequences = self.sequences.only(np.concatenate([np.array(kept, np.int64), *options]))
        return QuestionRows(sequences, [self.questions[i] for i in kept])

    def bind(self, learner: Learner, catalog: TextCatalog) -> AnswerTask:
        """The task for a learner's model, on its device."""
        n, targets = len(self.questions), catalog.targets
        edges = (*range(0, n, AT_ONCE), n)
        device = catalog.runtime.device
        right = Parts(lambda start, stop: self._rows(start, stop, device), edges)
        asked = Parts(lambda start, stop: self._asked(start, stop, device), edges if self._has_options else (0,))
        return AnswerTask(
            objective_of(learner, CausalLmObjective), learner.layout, n, right, asked, targets.loss, targets.likelihood
        )

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def _has_options(self) -> bool:
        return len(self.sequences) > len(self.questions)

    def _rows(self, start: int, stop: int, device: str) -> Rows:
        return tuple(x.to(device) for x in self.sequences.rows(np.arange(start, stop)))

    def _asked(self, start: int, stop: int, device: str) -> Asked:
        """All options of the questions from ``start`` to before ``stop``."""
        sizes = [len(question.options) for question in self.questions]
        firsts = np.cumsum([0, *sizes])
        at = len(self.questions) + firsts
        owners = np.repeat(np.arange(stop - start), sizes[start:stop])
        right = [int(firsts[i] - firsts[start]) + self.questions[i].right for i in range(start, stop)]
        tensors = (torch.tensor(x, dtype=torch.int64, device=device) for x in (owners.tolist(), right))
        return Asked(self._rows(int(at[start]), int(at[stop]), device), *tensors)


def asked_sequences(tokenizer: TextTokenizer, questions: list[Question]) -> Sequences:
    """Questions as tokens: all right answers, then all options where there are any."""
    pairs = [(q.prompt, q.options[q.right]) for q in questions]
    if any(len(q.options) > 1 for q in questions):
        pairs += [(q.prompt, option) for q in questions for option in q.options]
    return tokenizer.sequences(*zip(*pairs, strict=True))
