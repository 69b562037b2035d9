"""Model configs as users write them: every mistake names the file and the key, before anything is trained."""

from __future__ import annotations

import json
from typing import Any

from testing.field_case import Place, case, told, works

VISION, TEXT = "vision_cfg", "text_cfg"


def with_model(p: Place, change: dict[str, Any], remove: tuple[tuple[str, str], ...] = ()) -> list[str]:
    """Curate with a changed model config."""
    path = p.field.directory / "model.json"
    config = json.loads(path.read_text())
    for name, value in change.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) and name in config else value
    for section, key in remove:
        del config[section][key]
    path.write_text(json.dumps(config))
    return ["curate", p.catalog()]


@case("Q", told(r"model\.json", r"image_size"), works())
def no_image_size(p: Place) -> list[str]:
    return with_model(p, {}, ((VISION, "image_size"),))


@case("Q", told(r"model\.json", r"image_size"))
def an_image_size_of_two_numbers(p: Place) -> list[str]:
    return with_model(p, {VISION: {"image_size": [32, 64]}})


@case("Q", told(r"model\.json", r"image_siz"))
def a_key_of_the_model_misspelt(p: Place) -> list[str]:
    return with_model(p, {VISION: {"image_siz": 32}})


@case("Q", told(r"model\.json", r"timm_model_name|no_such_model"))
def an_unknown_timm_model(p: Place) -> list[str]:
    return with_model(p, {VISION: {"timm_model_name": "no_such_model"}})


@case("Q", told(r"model\.json", r"embed_dim"))
def no_embed_dim(p: Place) -> list[str]:
    path = p.field.directory / "model.json"
    config = json.loads(path.read_text())
    del config["embed_dim"]
    path.write_text(json.dumps(config))
    return ["curate", p.catalog()]


@case("Q", told(r"multimodal_cfg|CoCa"))
def a_coca(p: Place) -> list[str]:
    return with_model(p, {"multimodal_cfg": {"context_length": 10, "vocab_size": 49408, "width": 64, "heads": 2}})


@case("Q", told(r"tokenizer"))
def a_tokenizer_by_name(p: Place) -> list[str]:
    return with_model(p, {TEXT: {"hf_tokenizer_name": "bert-base-uncased"}})


@case("Q", told(r"batch norm|BatchNorm"))
def a_model_with_batch_norm(p: Place) -> list[str]:
    return with_model(p, {VISION: {"timm_model_name": "test_resnet"}})


@case("Q", told(r"model\.json"))
def a_model_that_is_no_json(p: Place) -> list[str]:
    (p.field.directory / "model.json").write_text("{embed_dim: 64}")
    return ["curate", p.catalog()]


@case("Q", told(r"model\.json"))
def a_model_that_is_a_list(p: Place) -> list[str]:
    (p.field.directory / "model.json").write_text("[1, 2]")
    return ["curate", p.catalog()]
