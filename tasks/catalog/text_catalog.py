"""The catalog of a curation of texts: instruction tuning of a causal language model."""

from __future__ import annotations

from tasks.catalog.base import BaseCatalog
from tasks.catalog.text_options import TextModelOptions, TextPoolOptions, TextTargetOptions, TextTrialOptions


class TextCatalog(BaseCatalog):
    """A curation of prompts and completions for a causal language model."""

    model_places = ("folder",)
    pool: TextPoolOptions
    targets: TextTargetOptions
    model: TextModelOptions
    comparison: TextTrialOptions = TextTrialOptions()
