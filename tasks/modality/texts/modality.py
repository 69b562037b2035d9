"""Texts as a kind of training data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq

from tasks.catalog.text_catalog import TextCatalog
from tasks.catalog.text_options import TextTargetOptions
from tasks.files.artefacts import reading
from tasks.files.progress import announce, say
from tasks.files.sources import reader_of
from tasks.modality.base import Baseline, Modality, Seen, States
from tasks.modality.texts.baselines import BASELINES, seen
from tasks.modality.texts.hidden_states import with_states
from tasks.modality.texts.question_rows import QuestionRows, asked_sequences
from tasks.modality.texts.questions import Question, check_apart, check_options, load_questions
from tasks.modality.texts.recipe import TextRecipe, built_options
from tasks.modality.texts.sequences import Sequences, TextTokenizer, joined
from tasks.pool.columns import columns_of
from tasks.pool.record import PoolRecord
from tasks.runs.run import Run

AT_ONCE = 1 << 12
"""Texts that are held while they are tokenised."""


class TextModality(Modality):
    """Prompts and completions, for a causal language model."""

    kinds = ("causal_lm",)
    catalog = TextCatalog
    packages = ("transformers", "tokenizers", "peft")
    baselines: ClassVar[Mapping[str, Baseline]] = BASELINES

    def open(self, run: Run) -> TextRecipe:
        """With pool and questions as tokens, and their hidden states where the last layers alone are trained.

        Raises:
            CatalogError: a task has no questions, or shares some with another.
            LanguageModelError: the model's folder or its tokenizer cannot be used.
        """
        catalog, pool = run.catalog, run.pool
        assert isinstance(catalog, TextCatalog)
        reader = reader_of(pool.directory)
        questions = catalog.targets.roles.map(lambda name, task: load_questions(name, task, reader))
        check_apart(questions)
        if catalog.targets.loss != "completion":
            check_options(questions)
        tokenizer = TextTokenizer(catalog.model)

        def ready(name: str, found: Sequences) -> Sequences:
            if found.cut:
                say(
                    f"{name}: {found.cut:,} of {len(found):,} texts are longer than model.max_tokens = "
                    f"{catalog.model.max_tokens}; their prompts lose the beginning, then their completions the end"
                )
            return with_states(run, built_options(catalog.model), name, found)

        def rows(name: str, found: list[Question]) -> QuestionRows:
            return QuestionRows(ready(name, asked_sequences(tokenizer, found)), found)

        own = ready("pool", joined(list(_tokenised(tokenizer, pool))))
        return TextRecipe(run, catalog, pool, columns_of(pool).uids, questions.map(rows), own)

    def seen(self, recipe: TextRecipe, states: States) -> Seen:
        """Embeddings of the texts, and their losses at the end."""
        return seen(recipe, next(iter(states.values())))

    def check(self, catalog: TextCatalog, home: Path) -> list[str]:
        """See that the folder's tokenizer can be used."""
        TextTokenizer(catalog.model)
        return []

    def measured_by(self, targets: TextTargetOptions) -> dict[str, Any]:
        """What is lowered, and how options are scored."""
        return {"loss": targets.loss, "likelihood": targets.likelihood}


def _tokenised(tokenizer: TextTokenizer, pool: PoolRecord) -> Iterator[Sequences]:
    """The pool's samples as tokens, a stretch at a time."""
    with reading(pool.samples_path), pq.ParquetFile(pool.samples_path) as file:
        done = 0
        for rows in file.iter_batches(AT_ONCE, columns=["prompt", "completion"]):
            announce("tokens of the texts", done, pool.samples)
            yield tokenizer.sequences(rows["prompt"].to_pylist(), rows["completion"].to_pylist())
            done += rows.num_rows
        announce("tokens of the texts", done, pool.samples)
