"""Model configs: open_clip's JSON files, as far as a curation can be true to them.

What open_clip would read and a curation would not (another tokenizer, another loss, a captioning tower, weights to
download) is refused, not passed over, and so is any key that nobody reads. Sizes that a config leaves out are those of
open_clip. A model is built and shown one picture before anything is trained, without memory for its weights where that
can be done.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgd_core.clip import ClipError, ClipObjective, build_clip
from tasks.catalog_files import CatalogError, read_text
from tasks.modality.pairs.vocabulary import FULL_SIZE

Config = dict[str, Any]
TOWERS = ("vision_cfg", "text_cfg")
OPTIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "quick_gelu": ("true or false", lambda x: isinstance(x, bool)),
    "custom_text": ("true or false", lambda x: isinstance(x, bool)),
    "init_logit_scale": ("a number", lambda x: _is_number(x) and isfinite(x)),
}
"""Keys of a config beside its sizes and towers that reach the model, and what they are."""
REFUSED = {
    "multimodal_cfg": "this is a CoCa, which also learns to write captions; a curation trains CLIPs. Take a config "
    "without it",
    "init_logit_bias": "this is of SigLIP's loss, where every pair stands for itself; a curation trains with CLIP's, "
    "on which a bias has no effect. Remove it",
    "model_cfg": "this is a hub's file around a config; take what stands under 'model_cfg'",
    "vision_cfg.output_tokens": "of a picture one feature is needed, not one of each patch. Remove it",
    "text_cfg.output_tokens": "of a caption one feature is needed, not one of each token. Remove it",
    "text_cfg.hf_model_name": "a text tower of Hugging Face has its own tokenizer and weights; take one of open_clip",
    "text_cfg.hf_tokenizer_name": "captions are read by open_clip's own tokenizer. Remove it",
    "text_cfg.tokenizer_mode": "captions are read by open_clip's own tokenizer. Remove it",
    "text_cfg.tokenizer_kwargs": "captions are read by open_clip's own tokenizer. Remove it",
}
"""Keys that open_clip reads, and why a curation cannot be true to them."""
SHORTEST = 3  # tokens of a text: its begin, something, its end


def load_model_config(path: Path) -> Config:
    """An open_clip model config, its `image_size` and `context_length` as whole numbers.

    Raises:
        CatalogError: it cannot be read, lacks a part, or says what would not be done; names file and key.
    """
    config = _read(path)
    for key in ("embed_dim", *TOWERS):
        if key not in config and not set(config) & set(REFUSED):
            raise CatalogError(f"{path}: not an open_clip model config, it lacks {key}")
    for key, value in config.items():
        if key in REFUSED:
            raise CatalogError(f"{path}: {key}: {REFUSED[key]}")
        if key in OPTIONS and not OPTIONS[key][1](value):
            raise CatalogError(f"{path}: {key} = {value!r} is not {OPTIONS[key][0]}")
        if key not in ("embed_dim", *TOWERS, *OPTIONS):
            raise CatalogError(_unknown(path, key, {"embed_dim", *TOWERS, *OPTIONS}))
    _whole(path, "embed_dim", config["embed_dim"], 1)
    for tower in TOWERS:
        if not isinstance(config[tower], dict):
            raise CatalogError(f"{path}: {tower} = {config[tower]!r} is no table of keys")
        _check_tower(path, tower, config[tower])
    vision = {**config["vision_cfg"], "image_size": _side(path, config["vision_cfg"])}
    length = config["text_cfg"].get("context_length", _defaults("text_cfg")["context_length"])
    text = {**config["text_cfg"], "context_length": _whole(path, "text_cfg.context_length", length, SHORTEST)}
    return {**config, "vision_cfg": vision, "text_cfg": text}


def known_keys(tower: str, config: Config) -> set[str]:
    """What open_clip reads of a tower's config: of a tower from timm or Hugging Face, their own keys and sizes only."""
    known = set(_defaults(tower))
    foreign = next((prefix for prefix in ("timm_", "hf_") if config.get(f"{prefix}model_name")), None)
    shared = {"image_size", "patch_dropout", "context_length", "vocab_size"}
    return {key for key in known if foreign is None or key.startswith(foreign) or key in shared}


def check_model(path: Path) -> None:
    """Build the model of a config and show it a picture and a caption of the sizes that it names.

    Raises:
        CatalogError: the config cannot be used, or the model of it cannot be trained; names the file and why.
    """
    config = load_model_config(path)
    try:
        try:
            _show(json.dumps(config), "meta")
        except Exception:  # weights on `meta` are not for every layer: the same in earnest
            _show(json.dumps(config), "cpu")
    except ClipError as error:
        raise CatalogError(f"{path}: {error}{_near(config)}") from error
    except Exception as error:  # layers raise their own
        size, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
        raise CatalogError(
            f"{path}: the model of this config cannot encode a picture of image_size = {size} and a text of "
            f"context_length = {length}: {' '.join(str(error).split())[:300]}. Its towers may be made for other sizes, "
            "or want keys that it lacks"
        ) from error


def built_clip(config: Config, vocabulary: int, seed: int) -> torch.nn.Module:
    """The CLIP of a config for so many tokens, its weights drawn from ``seed``."""
    text = {**config["text_cfg"], "vocab_size": vocabulary}
    others = {key: config[key] for key in OPTIONS if key in config}
    return build_clip(int(config["embed_dim"]), config["vision_cfg"], text, seed, **others)


@lru_cache(maxsize=8)
def _show(text: str, device: str) -> None:
    config = json.loads(text)
    size, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    with torch.device(device), torch.no_grad():
        objective = ClipObjective(built_clip(config, FULL_SIZE, 0))
        params = dict(objective.model.named_parameters())
        rows = torch.zeros(2, 3, size, size, dtype=torch.uint8), torch.ones(2, length, dtype=torch.int64)
        features = objective.encode(params, rows)
    wrong = [tuple(x.shape) for x in features if not isinstance(x, Tensor) or x.shape != (2, config["embed_dim"])]
    if wrong:
        raise ValueError(f"features are of shape {wrong[0]}, not (2, {config['embed_dim']})")


def _read(path: Path) -> Config:
    try:
        config = json.loads(read_text(path, "the model config"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, CatalogError):
            raise
        raise CatalogError(f"{path}: cannot read the model config, which is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CatalogError(f"{path}: not an open_clip model config, but a JSON {type(config).__name__}")
    return config


def _check_tower(path: Path, tower: str, config: Config) -> None:
    known = known_keys(tower, config)
    for key, value in config.items():
        if f"{tower}.{key}" in REFUSED and value not in (None, False):
            raise CatalogError(f"{path}: {tower}.{key}: {REFUSED[f'{tower}.{key}']}")
        if key not in known:
            raise CatalogError(_unknown(path, f"{tower}.{key}", {f"{tower}.{one}" for one in known}))
    if config.get("timm_model_pretrained"):
        raise CatalogError(
            f"{path}: {tower}.timm_model_pretrained: weights are drawn from the catalog's seeds, and nothing is "
            "downloaded. Write false"
        )
    if tower == "text_cfg" and config.get("vocab_size", FULL_SIZE) != FULL_SIZE:
        raise CatalogError(
            f"{path}: text_cfg.vocab_size = {config['vocab_size']!r} is of another tokenizer; open_clip's own, by "
            f"which captions are read, has {FULL_SIZE:,} tokens (model.vocabulary = 'used' keeps those that occur)"
        )
    if tower == "text_cfg" and config.get("pool_type") == "eos":
        raise CatalogError(f"{path}: text_cfg.pool_type = 'eos' goes by another tokenizer's end; write 'argmax'")


def _side(path: Path, vision: Config) -> int:
    side = vision.get("image_size", _defaults("vision_cfg")["image_size"])
    if isinstance(side, list) and len(side) == 2 and side[0] == side[1]:
        side = side[0]
    if isinstance(side, list):
        raise CatalogError(f"{path}: vision_cfg.image_size = {side}: pictures are made square; write one number")
    return _whole(path, "vision_cfg.image_size", side, 1)


def _whole(path: Path, key: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        raise CatalogError(f"{path}: {key} = {value!r} is not a whole number from {least} on")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unknown(path: Path, key: str, known: set[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    hint = f"did you mean '{near[0]}'?" if near else f"it reads {', '.join(sorted(known))}"
    return f"{path}: key '{key}' would change nothing: open_clip, or the curation, does not read it here; {hint}"


def _defaults(tower: str) -> dict[str, Any]:
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    return {field.name: field.default for field in fields(CLIPVisionCfg if tower == "vision_cfg" else CLIPTextCfg)}


def _near(config: Config) -> str:
    """A hint at the name of a timm model that does not exist."""
    name = config["vision_cfg"].get("timm_model_name")
    if not name:
        return ""
    import timm

    known = timm.list_models()
    near = difflib.get_close_matches(str(name), known, n=3)
    return f". timm has {', '.join(near)}" if near and name.split(".")[0] not in known else ""
