"""The language model of a catalog, as its builder takes it."""

from __future__ import annotations

from pathlib import Path

from mgd_core.model_folders import CausalLmOptions, LoraOptions
from tasks.text_options import TextModelOptions


def built_options(options: TextModelOptions) -> CausalLmOptions:
    """What the model's builder needs of the catalog."""
    lora = LoraOptions(options.lora.rank, options.lora.alpha, options.lora.layers) if options.lora else None
    return CausalLmOptions(Path(options.folder), options.trained_layers, lora, options.dropout)
