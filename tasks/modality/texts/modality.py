"""Texts as a kind of training data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tasks.modality.base import Baseline, Modality
from tasks.modality.texts.baselines import FILTERS, kept
from tasks.modality.texts.recipe import TextRecipe, open_texts
from tasks.modality.texts.sequences import TextTokenizer
from tasks.pool_records import PoolRecord
from tasks.runs import Run
from tasks.text_catalog import TextCatalog
from tasks.text_options import TextTargetOptions


class TextModality(Modality):
    """Prompts and completions, for a causal language model."""

    kinds = ("causal_lm",)
    catalog = TextCatalog
    packages = ("transformers", "tokenizers", "peft")
    baselines: ClassVar[Mapping[str, Baseline]] = {
        name: Baseline(partial(kept, subset=name), of_round_0=name == "loss_filter") for name in FILTERS
    }

    def open(self, run: Run, pool: PoolRecord) -> TextRecipe:
        """The recipe of a run."""
        return open_texts(run, pool)

    def check(self, catalog: TextCatalog, home: Path) -> list[str]:
        """See that the folder's tokenizer can be used."""
        TextTokenizer(catalog.model)
        return []

    def measured_by(self, targets: TextTargetOptions) -> dict[str, Any]:
        """What is lowered, and how options are scored."""
        return {"loss": targets.loss, "likelihood": targets.likelihood}
