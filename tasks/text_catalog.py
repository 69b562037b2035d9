"""The catalog of a curation of texts: instruction tuning of a causal language model."""

from __future__ import annotations

from tasks.base_catalog import BaseCatalog
from tasks.text_options import TextModelOptions, TextPoolOptions, TextTargetOptions, TextTrialOptions


class TextCatalog(BaseCatalog):
    """A curation of prompts and completions for a causal language model."""

    model_places = ("folder",)
    pool: TextPoolOptions
    targets: TextTargetOptions
    model: TextModelOptions
    comparison: TextTrialOptions = TextTrialOptions()
