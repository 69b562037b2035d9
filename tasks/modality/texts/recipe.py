"""The recipe of texts: a causal language model, tuned on prompts and completions, and the questions put to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import nn

from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.models.causal_lm import CausalLmObjective, Decoder
from mgd_core.models.model_folders import CausalLmOptions, LoraOptions, build_causal_lm
from mgd_core.models.multiple_choice import AnswerTask
from mgd_core.training.learner import Learner
from tasks.catalog.roles import Roles
from tasks.catalog.text_catalog import TextCatalog
from tasks.catalog.text_options import TextModelOptions
from tasks.modality.recipe import Ids, PoolRecipe
from tasks.modality.texts.question_rows import QuestionRows
from tasks.modality.texts.sequences import Sequences


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


def built_options(options: TextModelOptions) -> CausalLmOptions:
    """What the model's builder needs of the catalog."""
    lora = LoraOptions(options.lora.rank, options.lora.alpha, options.lora.layers) if options.lora else None
    return CausalLmOptions(Path(options.folder), options.trained_layers, lora, options.dropout)


@lru_cache(maxsize=2)
def _decoder(options: CausalLmOptions, seed: int, device: str) -> Decoder:
    """The model, which holds no state of a training: parameters are handed to it."""
    return build_causal_lm(options, seed).to(device)
