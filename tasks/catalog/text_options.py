"""What a catalog of texts says beside a recipe: columns of the pool, questions of the targets, the language model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from tasks.catalog.recipe_options import SourceOptions, TrialOptions
from tasks.catalog.roles import TestName
from tasks.catalog.target_sections import TargetsSection, TaskSection
from tasks.files.option_types import Filled, Place, Section, Whole
from tasks.pool.text_records import TextColumns


class TextPoolOptions(SourceOptions):
    """Where the candidate samples come from: JSON lines, Parquet, or tars of json members."""

    columns: TextColumns = TextColumns()
    """What the columns are called."""

    @property
    def form(self) -> TextColumns:
        """Records with these columns."""
        return self.columns


class QuestionOptions(TaskSection):
    """A task: samples whose completions should be likely, or questions with options of which one is right."""

    source: Place
    """JSON lines, Parquet, or a tar of json members: `prompt`, and either `completion`, or `options` (a list of texts)
    and `answer` (the place of the right one, from 0, or its text)."""
    columns: TextColumns = TextColumns()


class TextTargetOptions(TargetsSection):
    """What the descent lowers, what chooses the round, and what only the report sees."""

    target: QuestionOptions
    heldout: QuestionOptions
    tests: Annotated[dict[TestName, QuestionOptions], Filled]
    loss: Literal["completion", "choice", "both"] = "completion"
    """What is lowered: the loss of right answers, the cross-entropy of the right one among a question's options, or the
    sum of the two."""
    likelihood: Literal["mean", "sum"] = "mean"
    """An option's score: the mean log-probability of its tokens, or their sum, which favours short options."""


class LoraOptions(Section):
    """Low-rank adapters (Hu et al. 2022), through peft."""

    rank: Whole = 8
    """Rank of the two matrices whose product is added to a layer's weights."""
    alpha: Whole = 16
    """Their product is multiplied by alpha / rank."""
    layers: tuple[str, ...] = ()
    """Names of the linear layers that get one, such as "q_proj"; none: peft's choice for the model."""


class TextModelOptions(Section):
    """The language model that is trained."""

    kind: Literal["causal_lm"]
    """A causal language model of transformers; this makes the catalog one of texts."""
    folder: Place
    """Folder of a Hugging Face model and its tokenizer (`save_pretrained`); relative to the catalog file."""
    trained_layers: Whole | None = None
    """Only the last so many layers are trained, and what lies below is computed once a sample (4 bytes x width x tokens
    of disk each, in the run's directory). None: all layers, the embeddings too."""
    lora: LoraOptions | None = None
    """Train low-rank adapters instead of the weights themselves."""
    reduction: Literal["mean", "sum"] = "mean"
    """Loss of a sample: the mean over its predicted tokens, or their sum. The batch takes the mean over samples."""
    max_tokens: Annotated[int, Field(ge=2, le=2**31)] = 256
    """Longest sample. Of longer ones the prompt loses its beginning, then the completion its end; told before a run."""
    template: str = "{prompt}\n"
    """What a prompt becomes before the completion follows; "chat": the tokenizer's own chat template."""
    dropout: Literal["as_configured", "off"] = "as_configured"
    """A model that drops at random is refused, unless this switches it off."""

    @model_validator(mode="after")
    def _template_has_a_place(self) -> TextModelOptions:
        if self.template != "chat" and self.template.count("{prompt}") != 1:
            raise ValueError(f'template {self.template!r} needs {{prompt}} once, where the prompt goes; or "chat"')
        return self


class TextTrialOptions(TrialOptions):
    """Rivals of a subset of texts, each of as many samples."""

    built_in: ClassVar[tuple[str, ...]] = (
        *("everything", "mgd", "random", "loss_filter", "gradient_filter", "embedding_filter", "oracle"),
    )
    subsets: tuple[str, ...] = ("everything", "random", "loss_filter", "gradient_filter", "embedding_filter", "mgd")
    """`everything`; `mgd`: what descent chose; `oracle`: what the truth calls right; `random`; `loss_filter`: lowest
    loss by round 0's own model; `gradient_filter`: LESS, the gradients most like the target's at points of a short
    training (Xia et al. 2024); `embedding_filter`: hidden states most like the target's. `FILTER@COLUMN`, say
    `loss_filter@task`: whole groups, by the mean of the filter's scores over each group that a column of the pool tells
    (as `descent.groups`)."""
