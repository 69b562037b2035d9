"""Texts as a kind of training data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tasks.catalog.text_catalog import TextCatalog
from tasks.catalog.text_options import TextTargetOptions
from tasks.files.progress import say
from tasks.files.sources import reader_of
from tasks.modality.base import Baseline, Modality
from tasks.modality.texts.baselines import FILTERS, kept
from tasks.modality.texts.hidden_states import with_states
from tasks.modality.texts.question_rows import QuestionRows, asked_sequences
from tasks.modality.texts.questions import Question, check_apart, check_options, load_questions
from tasks.modality.texts.recipe import TextRecipe, built_options
from tasks.modality.texts.sequences import Sequences, TextTokenizer
from tasks.runs.run import Run
from tasks.tables.published import read_parquet
from tasks.tables.uids import uid_bytes


class TextModality(Modality):
    """Prompts and completions, for a causal language model."""

    kinds = ("causal_lm",)
    catalog = TextCatalog
    packages = ("transformers", "tokenizers", "peft")
    baselines: ClassVar[Mapping[str, Baseline]] = {
        name: Baseline(partial(kept, subset=name), of_round_0=name == "loss_filter") for name in FILTERS
    }

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
        samples = read_parquet(pool.samples_path, columns=["uid", "prompt", "completion"])

        def ready(name: str, found: Sequences) -> Sequences:
            if found.cut:
                say(
                    f"{name}: {found.cut:,} of {len(found):,} texts are longer than model.max_tokens = "
                    f"{catalog.model.max_tokens}; their prompts lose the beginning, then their completions the end"
                )
            return with_states(run, built_options(catalog.model), name, found)

        def rows(name: str, found: list[Question]) -> QuestionRows:
            return QuestionRows(ready(name, asked_sequences(tokenizer, found)), found)

        own = ready("pool", tokenizer.sequences(samples["prompt"].to_pylist(), samples["completion"].to_pylist()))
        return TextRecipe(run, catalog, pool, uid_bytes(samples["uid"]), questions.map(rows), own)

    def check(self, catalog: TextCatalog, home: Path) -> list[str]:
        """See that the folder's tokenizer can be used."""
        TextTokenizer(catalog.model)
        return []

    def measured_by(self, targets: TextTargetOptions) -> dict[str, Any]:
        """What is lowered, and how options are scored."""
        return {"loss": targets.loss, "likelihood": targets.likelihood}
