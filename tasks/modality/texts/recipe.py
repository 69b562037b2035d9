"""The recipe of texts: a causal language model, tuned on prompts and completions, and the questions put to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from mgd_core.answers import AnswerTask
from mgd_core.causal_lm import CausalLmObjective, Decoder
from mgd_core.learner import Learner
from mgd_core.model_folders import CausalLmOptions, build_causal_lm
from mgd_core.objective import Objective, Rows
from tasks.modality.recipe import Ids, PoolRecipe
from tasks.modality.texts.hidden_states import with_states
from tasks.modality.texts.model import built_options
from tasks.modality.texts.question_rows import QuestionRows, asked_sequences
from tasks.modality.texts.questions import Question, check_apart, check_options, load_questions
from tasks.modality.texts.sequences import Sequences, TextTokenizer
from tasks.pool_records import PoolRecord
from tasks.progress import say
from tasks.roles import Roles
from tasks.runs import Run
from tasks.sources import reader_of
from tasks.tables import read_parquet
from tasks.text_catalog import TextCatalog
from tasks.uids import uid_bytes


@dataclass(frozen=True)
class TextRecipe(PoolRecipe):
    """An open run on texts."""

    catalog: TextCatalog
    task_data: Roles[QuestionRows]
    sequences: Sequences

    def model(self, seed: int) -> nn.Module:
        """As its folder has it, whatever the seed; adapters are drawn."""
        built = built_options(self.catalog.model)
        return _decoder(built, seed if built.lora else 0, self.catalog.runtime.device)

    def objective(self, model: nn.Module) -> Objective:
        """Loss of the predicted tokens."""
        assert isinstance(model, Decoder)
        return CausalLmObjective(model, self.catalog.model.reduction)

    def rows(self, ids: Ids) -> Rows:
        """Inputs and labels."""
        return self.sequences.rows(ids)

    def bind(self, data: QuestionRows, learner: Learner) -> AnswerTask:
        """The questions of a task."""
        return data.bind(learner, self.catalog)


def open_texts(run: Run, pool: PoolRecord) -> TextRecipe:
    """The recipe of a run on texts.

    Raises:
        CatalogError: a task has no questions, or shares some with another.
        LanguageModelError: the model's folder or its tokenizer cannot be used.
    """
    catalog = run.catalog
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
        return with_states(run, catalog, name, found)

    def rows(name: str, found: list[Question]) -> QuestionRows:
        return QuestionRows(ready(name, asked_sequences(tokenizer, found)), found)

    own = ready("pool", tokenizer.sequences(samples["prompt"].to_pylist(), samples["completion"].to_pylist()))
    return TextRecipe(run, catalog, pool, uid_bytes(samples["uid"]), questions.map(rows), own)


@lru_cache(maxsize=2)
def _decoder(options: CausalLmOptions, seed: int, device: str) -> Decoder:
    """The model, which holds no state of a training: parameters are handed to it."""
    return build_causal_lm(options, seed).to(device)
