"""Causal language models of a local Hugging Face folder: full, their last layers, or LoRA.

Built by transformers (and adapters by peft), in float32; nothing is downloaded. With ``trained_layers`` = n the body is
cut below its last n layers, and what lies below is a ``Stem``. Refused: dropout (it destroys a metagradient), and
models whose logits are not a linear map of the last hidden states, found by comparing with transformers' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mgd_core.errors import UserError
from mgd_core.models.causal_lm import Decoder, Stem
from mgd_core.training.learner import check_rowwise

PROBE_TOKENS = 12  # of a sentence on which a built model is compared with transformers' own
OTHER_HEADS = ("summary_", "classifier_")  # of a config's keys: they speak of heads that a language model has not
TOLERANCE = 1e-4  # of their logits, as a share of the largest


class LanguageModelError(UserError, ValueError):
    """A model folder that cannot be used as it is; the message says what, where and what to do."""


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters: rank, alpha, and the names of the linear layers that get one (empty: peft's own choice)."""

    rank: int
    alpha: int
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class CausalLmOptions:
    """Which model, and what of it is trained."""

    folder: Path
    trained_layers: int | None = None
    lora: LoraOptions | None = None
    dropout: Literal["as_configured", "off"] = "as_configured"


def build_causal_lm(options: CausalLmOptions, seed: int) -> Decoder:
    """The trainable part of the model in a folder; adapters are drawn from ``seed`` alone, ambient RNG is restored.

    Raises:
        LanguageModelError: the folder is not there or not a causal model's, drops at random, has fewer layers than are
            to be trained, or computes logits in a way that this module does not.
    """
    whole = load_causal_lm(options)
    body, head = _body(whole), whole.get_output_embeddings()
    whole.requires_grad_(options.lora is None and options.trained_layers is None)
    if options.trained_layers is not None:
        kept = _layers(body, options)[-options.trained_layers :]
        _cut(body, options.trained_layers)
        kept.requires_grad_(options.lora is None)
    if options.lora is not None:
        _add_adapters(body, options.lora, seed)
    decoder = Decoder(body, head)
    _check_logits(decoder, options)
    decoder.train()  # eval mode may take fused paths that have no derivatives
    try:
        check_rowwise(decoder)
    except ValueError as error:
        raise LanguageModelError(f"{options.folder}: {error}") from None
    return decoder


def build_stem(options: CausalLmOptions) -> Stem | None:
    """What lies below the trained layers; None where all are trained."""
    if options.trained_layers is None:
        return None
    body = _body(load_causal_lm(options)).eval()
    return Stem(body, _layers(body, options)[-options.trained_layers])


def load_causal_lm(options: CausalLmOptions) -> Any:
    """transformers' own model of the folder, in float32 on the CPU."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = options.folder
    if not (folder / "config.json").is_file():
        raise LanguageModelError(
            f"{folder}: no model folder there (config.json is missing). It is what save_pretrained() of transformers "
            "writes: config.json, *.safetensors and the tokenizer's files; nothing is downloaded"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        _settle_dropout(config, options)
        model = AutoModelForCausalLM.from_pretrained(
            folder, config=config, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa"
        )
    except LanguageModelError:
        raise
    except Exception as error:  # transformers, safetensors and json each raise their own
        told = str(error).strip().split("\n")[0][:400]
        raise LanguageModelError(f"{folder}: not a causal language model that transformers can load: {told}") from error
    return model


def _settle_dropout(config: Any, options: CausalLmOptions) -> None:
    """Refuse dropout, or switch it off."""
    found = {key: value for key, value in config.to_dict().items() if _is_dropout(key, value)}
    if found and options.dropout == "as_configured":
        told = ", ".join(f"{key} = {value}" for key, value in found.items())
        raise LanguageModelError(
            f"{options.folder}: config.json has {told}. Dropout destroys a metagradient: a replayed step would "
            "draw other activations. Write dropout = 'off' in the catalog's [model], or set it to 0 in config.json"
        )
    for key in found:
        setattr(config, key, 0.0)


def _is_dropout(key: str, value: object) -> bool:
    number = isinstance(value, float | int) and not isinstance(value, bool)
    return "drop" in key and not key.startswith(OTHER_HEADS) and number and value > 0  # type: ignore[operator]


def _body(whole: Any) -> nn.Module:
    body: nn.Module = whole.base_model
    return body


def _layers(body: nn.Module, options: CausalLmOptions) -> nn.ModuleList:
    """The stack of layers."""
    _, _, found = _stack(body)
    n = options.trained_layers or 0
    if not 1 <= n <= len(found):
        raise LanguageModelError(
            f"model.trained_layers = {n}: the model in {options.folder} has {len(found)} layers; leave it out to "
            "train all"
        )
    return found


def _stack(body: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """Owner, attribute name and list of the body's layers: its longest list of modules."""
    found = [
        (owner, name, child)
        for owner in body.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList)
    ]
    return max(found, key=lambda one: len(one[2]))


def _cut(body: nn.Module, n: int) -> None:
    """Leave the last ``n`` layers; the config's list of layer types, which some models index, follows."""
    owner, name, layers = _stack(body)
    setattr(owner, name, nn.ModuleList(list(layers)[-n:]))
    config: Any = body.config
    config.num_hidden_layers = n
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[-n:]


def _add_adapters(body: nn.Module, lora: LoraOptions, seed: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.layers) or None, lora_dropout=0.0, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, body)
        except ValueError as error:
            names = sorted({name.rpartition(".")[2] for name, m in body.named_modules() if isinstance(m, nn.Linear)})
            raise LanguageModelError(
                f"model.lora.layers = {list(lora.layers)}: {str(error).splitlines()[0]}. The model's linear layers are "
                + ", ".join(names)
            ) from error
    for name, parameter in body.named_parameters():
        parameter.requires_grad_("lora_" in name)


@torch.no_grad()
def _check_logits(decoder: Decoder, options: CausalLmOptions) -> None:
    """Compare with transformers' own logits, on some tokens: adapters begin as zero, so both are the same function."""
    whole = load_causal_lm(options).eval()
    decoder.eval()
    tokens = torch.arange(1, PROBE_TOKENS + 1)[None] % whole.config.vocab_size
    stem = build_stem(options)
    inputs = tokens if stem is None else stem(tokens)
    theirs = whole(input_ids=tokens, use_cache=False).logits
    ours = decoder(inputs, torch.arange(PROBE_TOKENS)[None])
    if not torch.allclose(ours, theirs, atol=TOLERANCE * float(theirs.abs().max()), rtol=0):
        raise LanguageModelError(
            f"{options.folder}: logits differ by {float((ours - theirs).abs().max()):.3g} from transformers' own, so "
            "this kind of model does something that training in parts would leave out (soft-capped logits, inputs "
            "scaled inside). Leave trained_layers out, or take another model"
        )
