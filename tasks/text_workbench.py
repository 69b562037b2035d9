"""The workbench of texts: a causal language model, tuned on prompts and completions, and the questions put to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from mgd_core.causal_lm import CausalLmObjective, Decoder
from mgd_core.layout import ParameterLayout
from mgd_core.learner import Batch, Learner
from mgd_core.loader import Loader
from mgd_core.model_folders import CausalLmOptions, build_causal_lm, initial_parameters
from mgd_core.optimizers import State
from mgd_core.precision import PRECISIONS
from mgd_core.streams import ROUND_STREAM
from tasks.hidden_states import with_states
from tasks.pools import PoolRecord
from tasks.progress import say
from tasks.question_rows import QuestionRows, asked_sequences
from tasks.questions import Question, check_apart, check_options, load_questions
from tasks.roles import Roles
from tasks.runs import Run
from tasks.sequences import Sequences, TextTokenizer
from tasks.sources import reader_of
from tasks.tables import read_parquet
from tasks.text_catalog import TextCatalog
from tasks.uids import uid_bytes
from tasks.workbench import Counts, Ids, Task, Workbench, data_order


@dataclass(frozen=True)
class TextWorkbench(Workbench):
    """An open run on texts."""

    catalog: TextCatalog
    sequences: Sequences
    task_rows: Roles[QuestionRows]

    def learner(self, counts: Counts, seed: int, round: int = 0) -> tuple[Learner, State]:
        """The recipe on a training multiset, and its first state; a pure function of its arguments.

        The model begins as its folder has it, whatever the seed; adapters are drawn from seed and round.
        """
        options, runtime = self.catalog.learner, self.catalog.runtime
        built = self.catalog.model.built
        model = _decoder(built, seed * ROUND_STREAM + round if built.lora else 0, runtime.device)
        layout = ParameterLayout.of(model)
        theta = initial_parameters(model, layout)
        optimizer = self.optimizer(layout, theta)
        objective = PRECISIONS[runtime.precision].around(CausalLmObjective(model, self.catalog.model.reduction))
        batches = self._loader(data_order(self, counts, seed, round))  # type: ignore[arg-type]
        return Learner(objective, layout, optimizer, self.rates(), batches, options.chunk), optimizer.init(theta)

    def batches(self, parts: Sequence[Ids]) -> Iterator[Batch]:
        """One pass over parts of the pool, by positions; each row of weight 1. Read ahead."""
        loader = self._loader(parts)
        loader.expect(range(len(parts)))
        return map(loader, range(len(parts)))

    def tasks(self, learner: Learner) -> Roles[Task]:
        """The catalog's questions for a learner's model."""
        return self.task_rows.map(lambda _, rows: rows.bind(learner, self.catalog))

    def task_sizes(self) -> Roles[int]:
        """Questions of each task."""
        return self.task_rows.map(lambda _, rows: len(rows.questions))

    def ranking(self, subset: str) -> npt.NDArray[np.float64]:
        """Scores of the filters of `text_rivals`."""
        from tasks.text_rivals import scores

        return scores(self, subset)

    def _loader(self, order: Sequence[Ids]) -> Loader:
        runtime = self.catalog.runtime
        return Loader(lambda t: self._read(order[t]), runtime.readers, runtime.batch_cache, self.to_device)

    def _read(self, ids: Ids) -> Batch:
        return Batch(self.sequences.rows(ids), torch.from_numpy(ids), torch.ones(len(ids)))


def open_texts(run: Run, pool: PoolRecord) -> TextWorkbench:
    """The workbench of a run on texts.

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
    own = tokenizer.sequences(samples["prompt"].to_pylist(), samples["completion"].to_pylist())
    _tell_cut("pool", own, catalog.model.max_tokens)

    def rows(name: str, found: list[Question]) -> QuestionRows:
        asked = asked_sequences(tokenizer, found)
        _tell_cut(name, asked, catalog.model.max_tokens)
        return QuestionRows(with_states(run, name, asked), found)

    tasks = questions.map(rows)
    return TextWorkbench(run, catalog, pool, uid_bytes(samples["uid"]), with_states(run, "pool", own), tasks)


def _tell_cut(name: str, found: Sequences, longest: int) -> None:
    if found.cut:
        say(
            f"{name}: {found.cut:,} of {len(found):,} texts are longer than model.max_tokens = {longest}; "
            "their prompts lose the beginning, then their completions the end"
        )


@lru_cache(maxsize=2)
def _decoder(options: CausalLmOptions, seed: int, device: str) -> Decoder:
    """The model, which holds no state of a training: parameters are handed to it."""
    return build_causal_lm(options, seed).to(device)
